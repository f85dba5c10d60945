"""The records of exactly the runs that a study names, as tables: what else lies in the folder is not looked at."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from lsc.errors import UserError
from lsc.settings import read_yaml, validated
from lsc.study.code import made_by_other_code
from lsc.study.configuration import Study
from lsc.study.plan import planned
from lsc.study.variants import columns_of, is_stretch, resolve_dimensions, settings_of
from lsc.study.wording import listed, seeds_of, span, split_name
from lsc.training.records import METRICS, SUMMARY, read_json, read_rows
from lsc.training.run import Run

STUDY_FILE = "study.yaml"

# A table without a row has these columns all the same, so that nobody who chooses rows has to ask.
_ALWAYS = (
    "experiment", "variant", "seed", "num_classes", "dim", "final_top1", "objective", "label", "color", "role", "pulls_by",
    "has_centers", "shown", "system", "assignment", "perturbation", "data", "encoder", "hidden", "teacher", "targets",
    "labels_weight", "groups", "replay", "sums", "stretch", "images_at_once", "changes",
)  # fmt: skip


class Records:
    """A study's records: those of every run that its configuration names, and of no other.

    Args:
        results: folder of the study's results; ``study.yaml`` in it is the merged configuration, as the workflow keeps it.
        runs: folder of the runs, e.g. ``results/demo/runs``; elsewhere for reference records.

    Raises:
        UserError: there is no configuration, or a key of it is wrong.
    """

    def __init__(self, results: str | Path, runs: str | Path) -> None:
        self.results, self.runs = Path(results), Path(runs)
        path = self.results / STUDY_FILE
        if not path.exists():
            raise UserError(f"{path}: is missing and says which runs are read; snakemake --cores all writes it")
        # Not checked run by run: records outlive an objective that was in a file of one's own.
        self.study = validated(Study, read_yaml(path), str(path))

    def folder(self, name: str) -> Path:
        """The folder of the finished run ``experiment/variant/seed_n``.

        Raises:
            UserError: the study has no such run, or it is not finished.
        """
        if name not in self.study.run_names(name.partition("/")[0]):
            raise UserError(f"{name}: no run of {self.results / STUDY_FILE}; it names {self._known()}")
        if not (self.runs / name / SUMMARY).exists():
            raise UserError(f"{self.runs / name}: the run is missing; {self.remedy(f'{self.runs / name / SUMMARY}')}")
        return self.runs / name

    def remedy(self, target: str) -> str:
        """What to do about a file that is missing: the command that makes it."""
        if self.study.records == "reference":
            return f"keep the records of a finished study with: make reference STUDY={self.study.study}"
        return f"make it with: snakemake --cores all --configfile {self.results / STUDY_FILE} -- {target}"

    def run_of(self, name: str) -> Run:
        """The settings of a run, as the study has them."""
        return settings_of(self.study, name)

    def summaries(self, experiment: str) -> pd.DataFrame:
        """One line per run, in the order of the study; none where it has no such experiment.

        Columns: experiment, variant, seed, the fields of ``summary.json``, and what the study's settings say
        (:func:`lsc.study.variants.columns_of`), stretch (:func:`lsc.study.variants.is_stretch`), images_at_once, which
        a process holds in a step, and neighbours, how many of them judge transfer.

        Raises:
            UserError: a run is missing.
        """
        rows = []
        for name in self.study.run_names(experiment):
            summary, run = read_json(self.folder(name) / SUMMARY), self.run_of(name)
            training, processes = run.training, summary.get("processes", 1)
            settings = columns_of(self.study, name) | {
                "stretch": is_stretch(run, summary["num_classes"]),
                "images_at_once": training.batch_size / training.accumulate / processes,
                "neighbours": training.neighbours,
            }
            rows.append(_place(name) | summary | settings)
        resolve_dimensions(rows)
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(_ALWAYS))

    def metrics(self, experiment: str) -> pd.DataFrame:
        """One line per epoch of every run: experiment, variant, seed and the columns of ``metrics.jsonl``.

        A run that ends within an epoch has a fraction of it in its last line: 1.5, not 2.

        Raises:
            UserError: a run is missing.
        """
        names = self.study.run_names(experiment)
        rows = [_place(name) | row for name in names for row in _in_part(read_rows(self.folder(name) / METRICS))]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["experiment", "variant", "seed"])

    def has(self, experiment: str) -> bool:
        """Whether the study has a run of an experiment."""
        return bool(self.study.run_names(experiment))

    def about(self, experiment: str, *further: str) -> str:
        """As :meth:`account`, and ``further`` sentences on it; where the study has no such runs, a sentence that says so."""
        if not self.has(experiment):
            return f"This study has no runs of the experiment `{experiment}`."
        return " ".join(filter(None, [self.account(experiment), *further]))

    def account(self, experiment: str) -> str:
        """One paragraph, in Markdown, on what an experiment's runs did: data, encoder, training, seeds, hardware.

        Raises:
            UserError: the study has no run of it, or one is missing.
        """
        names = self.study.run_names(experiment)
        if not names:
            raise UserError(f"{self.results / STUDY_FILE}: names no run of {experiment!r}; it has {self._known()}")
        summaries = [read_json(self.folder(name) / SUMMARY) for name in names]
        runs = [self.run_of(name) for name in names]
        training, one = [run.training for run in runs], summaries[0]
        return (
            f"**What was done.** Data: {_listed(run.data.name for run in runs)}, "
            f"{listed(_counts(summaries, 'num_classes'))} classes. "
            f"Encoder: {_listed(run.encoder.name for run in runs)}, "
            f"{_range(summaries, 'encoder_parameters')} parameters. "
            f"Training: {_all(block.duration for block in training)} of "
            f"{_listed(block.optimizer for block in training)}, batch {_listed(block.batch_size for block in training)}, "
            f"learning rate {_all(format(block.learning_rate, 'g') for block in training)}. "
            f"{len(names)} runs, {seeds_of(run.seed for run in runs)}, on "
            f"{_listed(summary['device'] for summary in summaries)} "
            f"({_listed(summary['processor'] for summary in summaries)}); "
            f"torch {one['versions']['torch']}, commit {_listed(summary['commit'] for summary in summaries)}. "
            f"{_splits(summaries)}{_counted(summaries)}; a range given is that of the seeds.{self._chosen(experiment)}"
        )

    def _chosen(self, experiment: str) -> str:
        chosen = self.study.experiments[experiment].chosen or self.study.chosen
        return f" Choice of settings: {chosen.strip()}" if chosen else ""

    def older(self, experiment: str) -> str:
        """A sentence, in Markdown, on an experiment's runs that other code than today's made; none if there are none."""
        names = self.study.run_names(experiment)
        summaries = [read_json(self.folder(name) / SUMMARY) for name in names]
        older = [
            name
            for name, summary in zip(names, summaries, strict=True)
            if made_by_other_code(planned(self.run_of(name)), summary)
        ]
        if not older:
            return ""
        which = (
            f"All runs of {experiment}"
            if len(older) == len(names)
            else f"Of the runs of {experiment}, {_listed(older)}"
        )
        return (
            f"**{which} were made by other code than today's**; `lsc runs` lists them, and "
            "[config/README.md](config/README.md) says what counts."
        )

    def _known(self) -> str:
        return ", ".join(self.study.experiments) or "no experiment"


def _in_part(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A run's lines, the last with as much of its epoch as was trained, where all epochs have the same steps."""
    if len(rows) < 2 or "phase" in rows[0]:
        return rows
    whole, last = rows[0]["step"] / rows[0]["epoch"], rows[-1]
    if last["step"] < last["epoch"] * whole:
        last = last | {"epoch": last["step"] / whole}
    return [*rows[:-1], last]


def _place(name: str) -> dict[str, Any]:
    experiment, variant, seed = name.split("/")
    return {"experiment": experiment, "variant": variant, "seed": int(seed.removeprefix("seed_"))}


def _counts(summaries: Iterable[dict[str, Any]], key: str) -> list[str]:
    return [format(count, ",") for count in sorted({summary[key] for summary in summaries})]


def _splits(summaries: list[dict[str, Any]]) -> str:
    curves, final = (_all(split_name(summary[key]) for summary in summaries) for key in ("scored_on", "final_on"))
    if curves == final:
        return f"Accuracies are on the {final} images"
    return f"Curves show accuracy on the {curves} images, tables the final accuracy on the {final} images"


def _counted(summaries: list[dict[str, Any]]) -> str:
    """How many images are behind a final accuracy, and what one of them is worth; nothing where records lack their number."""
    counts = sorted({summary.get("final_images") or 0 for summary in summaries})
    if not counts[0]:
        return ""
    images = span(f"{counts[0]:,}", f"{counts[-1]:,}")
    worth = span(*(f"{100 / count:.2g}" for count in (counts[-1], counts[0])))
    return f", final ones shares of {images} images: one image is {worth} points"


def _all(values: Iterable[object]) -> str:
    return listed(list(dict.fromkeys(str(value) for value in values)))


def _range(summaries: list[dict[str, Any]], key: str) -> str:
    counts = _counts(summaries, key)
    return span(counts[0], counts[-1])


def _listed(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values))
