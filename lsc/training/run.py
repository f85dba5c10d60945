"""A run: one training with one seed, and all that its result depends on."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from lsc.data import DATASETS
from lsc.encoders import ENCODERS
from lsc.errors import UserError
from lsc.objectives import OBJECTIVES, Objective
from lsc.settings import Strict, block_of, digest, later, named_block, read_yaml, validated
from lsc.training.combinations import refuse_what_does_not_fit
from lsc.training.options import (
    CentersOptions,
    EncoderBlock,
    LifelongOptions,
    ReadoutOptions,
    Resources,
    SelfSupervisedOptions,
    TeacherOptions,
    TrainingOptions,
)


class Run(Strict):
    """One training with one seed: all that its result depends on."""

    experiment: str = "own"
    variant: str = "own"
    seed: int = Field(0, ge=0, lt=2**63)
    data: named_block(DATASETS, "data")  # type: ignore[valid-type]
    encoder: named_block(ENCODERS, "encoder", base=EncoderBlock, usual="small_cnn") = Field(  # type: ignore[valid-type]
        default_factory=lambda: block_of(ENCODERS, "small_cnn", EncoderBlock)
    )
    centers: CentersOptions = CentersOptions()
    objective: named_block(OBJECTIVES, "objective") = Field(  # type: ignore[valid-type]
        default_factory=lambda: block_of(OBJECTIVES, "cross_entropy")
    )
    training: TrainingOptions = TrainingOptions()
    teacher: TeacherOptions | None = None
    lifelong: LifelongOptions | None = None
    readout: ReadoutOptions | None = later(None, as_before=None)
    self_supervised: SelfSupervisedOptions | None = later(None, as_before=None)
    start: str | None = later(
        None,
        as_before=None,
        pattern="^[0-9a-f]{12}$",
        description="digest of the weights that the training begins with, see lsc train --from; null: with random ones",
    )
    resources: Resources = Resources()

    @property
    def name(self) -> str:
        return f"{self.experiment}/{self.variant}/seed_{self.seed}"

    @property
    def objective_class(self) -> type[Objective]:
        """The class behind ``objective.name``."""
        return OBJECTIVES[self.objective.name]

    def plain(self) -> dict[str, Any]:
        """The settings as plain containers, defaults included."""
        return self.model_dump(mode="json")

    def check_processes(self, processes: int) -> None:
        """Refuse a number of processes that this run cannot be shared among.

        Raises:
            UserError: the batch has no equal parts for them, or the objective knows one process alone.
        """
        shares = processes * self.training.accumulate
        if self.training.batch_size % shares:
            raise UserError(
                f"training.batch_size {self.training.batch_size}: must be a multiple of {shares}, {processes} processes "
                f"times training.accumulate {self.training.accumulate}"
            )
        part = self.training.batch_size // shares
        if self.self_supervised is not None and (part % 2 or part < 4):
            raise UserError(
                f"training.batch_size {self.training.batch_size}: a self-supervised start needs two whole pairs of views "
                f"or more in each of the {shares} parts of a batch; take a multiple of {2 * shares}, {4 * shares} or more"
            )
        if self.objective_class.trains_itself and processes > 1:
            raise UserError(
                f"objective {self.objective.name}: trains the rows that one process sampled; use --processes 1"
            )

    @property
    def digest(self) -> str:
        """Twelve hex digits over everything that the result depends on; see :func:`lsc.settings.digest`."""
        return digest(self, leave_out=lambda key: key == "resources")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        refuse_what_does_not_fit(self)
        return self


def run_from(settings: dict[str, Any], where: str = "") -> Run:
    """The run in a mapping."""
    return validated(Run, settings, where)


def read_run(path: Path) -> Run:
    """The run in a YAML file, such as the ``config.yaml`` of a run's folder."""
    return run_from(read_yaml(path), str(path))
