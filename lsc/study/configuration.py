"""A study: what is run. Experiments with variants and seeds, resolved to runs; every error names the key.

A study file gives experiments; an experiment gives the settings that its variants share (``run``) and what each variant
changes (``variants``). :meth:`Study.run_of` merges them into one :class:`~lsc.training.run.Run`, which holds everything
that a training needs.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lsc.errors import UserError
from lsc.settings import Strict, merge, read_yaml, validated
from lsc.study.measurements import CostOptions
from lsc.training.run import Run

# A chapter's number orders the notebooks; a chapter without runs has no experiment block.
CHAPTERS = ("centers", "low_dim", "high_dim", "million_classes", "distillation", "lifelong", "cost", "claims")
# What chapters read runs of; the workflow trains no run of any other experiment.
EXPERIMENTS = (
    "low_dim", "high_dim", "dimension", "million_classes", "closed_form_100", "closed_form", "closed_form_10000",
    "characters", "parts", "distillation", "lifelong", "scripts",
)  # fmt: skip


_CHOSEN = "how settings were chosen by trial, and on which images; sentences that the chapters print"


class Experiment(Strict):
    """The variants of one experiment; the settings of ``run`` hold for each unless it says otherwise."""

    seeds: list[int] | None = Field(None, min_length=1)
    chosen: str | None = Field(None, description=_CHOSEN)
    run: dict[str, Any] = {}
    variants: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], dict[str, Any]] = {}


class Study(Strict):
    """All experiments at one scale. ``chapters`` selects what is run."""

    study: str = Field(pattern=r"^[a-z0-9_]+$")
    chapters: list[Literal[CHAPTERS]]  # type: ignore[valid-type]
    seeds: list[int] = Field([0], min_length=1)
    records: Literal["measured", "reference"] = "measured"
    chosen: str | None = Field(None, description=f"{_CHOSEN}, for experiments that do not say")
    run: dict[str, Any] = {}
    experiments: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], Experiment] = {}
    cost: CostOptions = CostOptions()

    def run_names(self, experiment: str) -> list[str]:
        """``experiment/variant/seed_n`` of every run, in the order of the file."""
        block = self.experiments.get(experiment)
        if block is None:
            return []
        seeds = block.seeds or self.seeds
        return [f"{experiment}/{variant}/seed_{seed}" for variant in block.variants for seed in seeds]

    def run_of(self, name: str) -> Run:
        """The run ``experiment/variant/seed_n`` with all its settings.

        Raises:
            UserError: the name is none of the study's, or its settings are wrong.
        """
        match = re.fullmatch(r"([a-z0-9_]+)/([a-z0-9_]+)/seed_(\d+)", name)
        if match is None:
            raise UserError(f"--run {name!r}: write it as experiment/variant/seed_n, e.g. low_dim/cosine/seed_0")
        experiment, variant, seed = match[1], match[2], int(match[3])
        if experiment not in self.experiments:
            raise UserError(
                f"--run {name!r}: study {self.study!r} has no experiment {experiment!r}{_known(self.experiments)}"
            )
        block = self.experiments[experiment]
        if variant not in block.variants:
            raise UserError(
                f"--run {name!r}: experiment {experiment!r} has no variant {variant!r}{_known(block.variants)}"
            )
        settings = merge(merge(self.run, block.run), block.variants[variant])
        settings |= {"experiment": experiment, "variant": variant, "seed": seed}
        return validated(Run, settings, f"experiments.{experiment}.variants.{variant}")

    def check(self) -> None:
        """Resolve every run, so that a mistake in any of them shows at once."""
        _check_seeds(self.seeds, "seeds")
        for experiment, block in self.experiments.items():
            _check_seeds(block.seeds or [], f"experiments.{experiment}.seeds")
            for name in self.run_names(experiment):
                run = self.run_of(name)
                if run.teacher is not None and f"{run.teacher.run}/seed_{run.seed}" not in [
                    other for block in self.experiments for other in self.run_names(block)
                ]:
                    raise UserError(
                        f"experiments.{experiment}.variants.{run.variant}.teacher.run: the study has no run "
                        f"{run.teacher.run}/seed_{run.seed}"
                    )

    def check_shown(self) -> None:
        """Raise a UserError where a chapter shows nothing of an experiment, for which the workflow would train no run."""
        for experiment in self.experiments:
            if experiment not in EXPERIMENTS:
                near = get_close_matches(experiment, EXPERIMENTS, 1)
                meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(EXPERIMENTS)}"
                raise UserError(f"experiments.{experiment}: no chapter shows such an experiment; {meant}")


def _check_seeds(seeds: Sequence[int], key: str) -> None:
    twice = next((seed for place, seed in enumerate(seeds) if seed in seeds[:place]), None)
    if twice is not None:
        raise UserError(f"{key}: {twice} stands there twice; a seed names one run of each variant")


def _known(names: Any) -> str:
    return f"; it has {', '.join(map(str, names))}" if names else ""


def study_from(settings: dict[str, Any], where: str = "") -> Study:
    """The study in a mapping, every run of it checked."""
    study = validated(Study, settings, where)
    study.check()
    return study


def read_study(path: Path) -> Study:
    """The study in a YAML file."""
    return study_from(read_yaml(path), str(path))
