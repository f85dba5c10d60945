"""A run: one training with one seed, and all that its result depends on."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from lsc.data import DATASETS
from lsc.encoders import ENCODERS
from lsc.errors import UserError
from lsc.objectives import OBJECTIVES, CenterObjective, Objective
from lsc.objectives.euclidean import Euclidean
from lsc.objectives.orbit_softmax import OrbitSoftmax
from lsc.settings import Strict, block_of, digest, later, named_block, read_yaml, validated
from lsc.training.options import (
    CentersOptions,
    EncoderBlock,
    LifelongOptions,
    ReadoutOptions,
    Resources,
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
        if self.training.batch_size % self.training.accumulate:
            raise ValueError(
                f"training.batch_size ({self.training.batch_size}) must be a multiple of training.accumulate "
                f"({self.training.accumulate})"
            )
        options = self.training
        objective = self.objective_class
        if objective.trains_itself and (
            options.accumulate > 1 or options.optimizer != "adamw" or options.ema is not None
        ):
            raise ValueError(
                f"objective.name {self.objective.name} trains the rows of one sample by AdamW: leave training.accumulate at 1, "
                "training.optimizer at adamw and training.ema out, or take cross_entropy"
            )
        if self.readout is not None and not issubclass(objective, CenterObjective):
            raise ValueError(
                f"readout: the targets of {self.objective.name} move as its layer is trained, so the read-out has no closed "
                "form: leave the block out, or take an objective with centers"
            )
        if self.centers.system == "codes" and issubclass(objective, OrbitSoftmax):
            raise ValueError(
                f"objective.name {self.objective.name}: cannot sum over so rich a system as codes: take center_softmax or cosine"
            )
        if self.centers.fit is not None:
            if not issubclass(objective, CenterObjective):
                raise ValueError(f"centers.fit: {self.objective.name} has no centers to move: leave the block out")
            if issubclass(objective, Euclidean):
                raise ValueError(
                    "centers.fit: after a whitening small steps move embeddings far, which euclidean counts: take center_softmax "
                    "or cosine, which see directions alone"
                )
            if self.teacher is not None or self.lifelong is not None:
                raise ValueError(
                    "centers.fit moves the whole latent space, where a teacher's outputs and earlier classes have their places: "
                    "leave it out, or the block teacher or lifelong"
                )
        if self.lifelong is not None and self.lifelong.sums:
            if not issubclass(objective, CenterObjective):
                raise ValueError(f"lifelong.sums: {self.objective.name} has no read-out in closed form: take centers")
            if self.lifelong.replay != 0 or options.ema is not None:
                raise ValueError(
                    "lifelong.sums remembers sums, not images or averages: leave replay at 0 and training.ema out"
                )
        if self.lifelong is not None and self.centers.assignment == "similarity":
            raise ValueError(
                "centers.assignment similarity looks at all classes, most of which are still to come in lifelong learning: "
                "use shuffled"
            )
        if options.transfer is not None and not options.neighbours:
            raise ValueError("training.transfer is measured by nearest neighbours: set training.neighbours, e.g. to 5")
        if self.teacher is not None and self.teacher.targets == "logits" and not objective.soft_logits:
            raise ValueError("teacher.targets 'logits' needs the objective cross_entropy")
        if self.teacher is not None and self.teacher.labels_weight == 0:
            trained = self.teacher.targets == "logits" or not objective.learns
            if self.teacher.targets == "class_means" or not trained:
                raise ValueError(
                    f"teacher.labels_weight 0 leaves the objective {self.objective.name!r} with targets "
                    f"{self.teacher.targets!r} nothing to learn; give the labels a weight, or take cosine and embeddings"
                )
        if self.centers.system == "teacher" and self.teacher is None:
            raise ValueError("centers.system 'teacher' needs a teacher block that names the run")
        return self


def run_from(settings: dict[str, Any], where: str = "") -> Run:
    """The run in a mapping."""
    return validated(Run, settings, where)


def read_run(path: Path) -> Run:
    """The run in a YAML file, such as the ``config.yaml`` of a run's folder."""
    return run_from(read_yaml(path), str(path))
