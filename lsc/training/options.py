"""The blocks of a run's settings, but for those that belong to an objective, an encoder or a data set."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, GetPydanticSchema, model_validator
from pydantic_core import core_schema

from lsc.data import DATASETS
from lsc.settings import Block, Strict, later, named_block


class Duration:
    """A length of training in epochs, steps or examples, converted to steps in one place.

    Written as ``20 epochs``, ``500 steps`` or ``100000 examples``.
    """

    FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(epoch|step|example)s?\s*")

    def __init__(self, text: str):
        match = self.FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no duration; write e.g. '20 epochs', '500 steps' or '100000 examples'")
        self.written, self.amount, self.unit = match[1], float(match[1]), match[2]

    def steps(self, steps_per_epoch: int, batch_size: int) -> int:
        """The duration in steps of ``batch_size`` examples, rounded to the nearest."""
        per_unit = {"epoch": steps_per_epoch, "step": 1, "example": 1 / batch_size}[self.unit]
        return round(self.amount * per_unit)

    def __str__(self) -> str:
        return f"{self.written} {self.unit}s"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and (self.amount, self.unit) == (other.amount, other.unit)

    def __hash__(self) -> int:
        return hash((self.amount, self.unit))


def _duration_schema(_source: Any, _handler: Any) -> core_schema.CoreSchema:
    def read(value: Any) -> Duration:
        return value if isinstance(value, Duration) else Duration(str(value))

    return core_schema.no_info_plain_validator_function(read, serialization=core_schema.to_string_ser_schema())


def _duration_json(_core: Any, _handler: Any) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{Duration.FORM.pattern}$", "examples": ["20 epochs", "500 steps"]}


DurationField = Annotated[Duration, GetPydanticSchema(_duration_schema, _duration_json)]


class EncoderBlock(Block):
    """The network from image to embedding: a backbone with settings of its own, and the read-out that they all share."""

    name: str = "small_cnn"
    hidden: int | None = Field(None, ge=1, description="width of the read-out's hidden layer; null: linear read-out")
    weights: str | None = later(
        None,
        as_before=None,
        description="what the backbone starts from: a state dict (.pth, .safetensors), the folder of a finished run, or cached "
        "for the published weights of a torchvision or timm model that lie on this machine; null: untrained",
    )
    frozen: bool = later(
        False, as_before=False, description="the backbone stays as it is; the read-out alone is trained"
    )


class FitOptions(Strict):
    """Centers of the system ``codes`` given anew to fit the network's class means (:mod:`lsc.training.fitted`).

    The defaults are those of our trials (docs/learning.md).
    """

    at: list[DurationField] | None = Field(
        None,
        min_length=1,
        description="when, from the start of the training; null: after 0.05, 0.15, 0.4 and 1 epochs, not before 10, 20, 40 and "
        "80 steps, as far as they are in its first half",
    )
    per_class: int = Field(16, ge=1, description="training images whose mean embedding stands for a class")
    power: float = Field(
        0.4, ge=0, le=0.5, description="of the whitening of the means: 0.5 makes all variances equal, 0 leaves them"
    )


class CentersOptions(Strict):
    """The predefined vectors of the classes; see :class:`lsc.centers.Centers` and, for ``codes``, ``CodedCenters``."""

    system: str = Field(
        "A",
        description="A, V21, V22, V<p><m>, A_intrinsic, simplex, orthoplex, one_hot, gaussian, polygon, codes (a quarter ones, a "
        "quarter minus-ones, held as codes) or teacher",
    )
    dim: int | None = Field(None, ge=1, description="latent dimension; null: the least that holds the classes")
    assignment: Literal["shuffled", "ordered", "similarity"] = "shuffled"
    perturbation: float = Field(0.0, ge=0, lt=1)
    radius: float | None = Field(None, gt=0)
    fit: FitOptions | None = later(None, as_before=None)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.system == "codes":
            if self.dim is None:
                raise ValueError("centers.dim: the system codes has no least dimension: give one, such as 256")
            if self.perturbation or self.assignment != "shuffled":
                raise ValueError("centers.system codes: leave centers.perturbation and centers.assignment out")
        elif self.fit is not None:
            raise ValueError(
                f"centers.fit: in {self.system} no vector is near to where a network has a class: set centers.system to codes"
            )
        return self


class TrainingOptions(Strict):
    """How a run is trained. Batch sizes are global: over all processes and accumulated parts."""

    duration: DurationField = Duration("20 epochs")
    warmup: DurationField = Duration("1 epoch")
    batch_size: int = Field(64, ge=1)
    accumulate: int = Field(1, ge=1, description="parts that a batch is split into, one after another")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0, description="on matrices only")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd, or the first moment of adamw")
    beta2: float = Field(0.999, ge=0, lt=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_norm: float | None = Field(
        1.0, gt=0, description="of the gradient; null: as it is; where it is not given, 1 for adamw and null for sgd"
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of the averaged weights, which are then evaluated; less in the first steps"
    )
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    deterministic: bool = Field(
        True, description="identical weights from the same seed and machine; false is faster on a GPU"
    )
    evaluate_every: Annotated[int, Field(ge=1)] | DurationField = Field(
        1,
        description="epochs between evaluations; or a duration such as '500 steps', for epochs that are short: after the "
        "first epoch in which so much more was trained",
    )
    evaluation_batch_size: int = Field(512, ge=1)
    checkpoint_minutes: float = Field(
        15,
        gt=0,
        description="at most between checkpoints, which are also written after a warning signal, at the end, and after an epoch "
        "where writing them takes little of the time",
    )
    embeddings: int = Field(1000, ge=0, description="test images whose embeddings are kept for the figures")
    neighbours: int = Field(0, ge=0, description="k of the nearest-neighbour transfer accuracy; 0: not measured")
    neighbour_protocol: Literal["majority", "weighted"] = later(
        "majority",
        as_before="majority",
        description="majority: a vote of k among 10,000 training images, on the embedding; weighted: as published, with weights "
        "exp(cosine / 0.07), on the embedding and on the backbone's features (usual: k 20)",
    )
    neighbour_images: int | None = later(
        50, as_before=50, ge=1, description="training images of each class that are neighbours, weighted; null: all"
    )
    transfer: named_block(DATASETS, "training", "transfer") | None = Field(  # type: ignore[valid-type]
        None, description="set that it is measured on; null: the run's own, or for instances the set that they are of"
    )

    @model_validator(mode="before")
    @classmethod
    def _recipes_of_sgd_have_no_clipping(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("optimizer") == "sgd":
            return {"clip_norm": None} | given
        return given


class ReadoutOptions(Strict):
    """The read-out's last layer in closed form (:mod:`lsc.encoders.closed_form`); without this block it is trained by steps.

    With cross-entropy the refit alone is to be had, of the classification layer with the layer before it.

    The defaults are those of our trials (docs/learning.md).
    """

    sums: Literal["running", "passes"] | None = Field(
        "running",
        description="what it is solved from as the run trains: sums of the training batches with forgetting, or passes over "
        "training images; null: it is trained by steps, and refit alone is in closed form",
    )
    start: DurationField = Field(Duration("40 steps"), description="when it is solved first")
    every: DurationField = Field(Duration("20 steps"), description="how often then")
    half_life: float = Field(30, gt=0, description="steps after which a batch counts half in running sums")
    share: float = Field(
        0.5, gt=0, le=1, description="of the way to the solution that the layer moves, from running sums"
    )
    ridge: float | None = Field(
        None,
        gt=0,
        description="penalty, in units of the mean square of an activation; null: 0.001 as the run trains, and in the last refit "
        "a tenth of what generalised cross-validation says",
    )
    refit: bool = Field(True, description="solve once more at the end, over training images without augmentation")
    images: int | None = Field(
        None,
        ge=1,
        description="training images of a pass; null: ten for each activation, at the end a hundred, or all if there are fewer",
    )


class SelfSupervisedOptions(Strict):
    """A self-supervised start (:mod:`lsc.training.self_supervised`): VICReg on two views of each image, without labels.

    A batch holds half as many images then, each twice, so that a step costs what it costs otherwise.
    """

    epochs: int = Field(1, ge=1, description="of the duration, the first ones")


class TeacherOptions(Strict):
    """Distillation: a finished run of the same seed whose outputs are targets."""

    run: str = Field(pattern=r"^[a-z0-9_]+/[a-z0-9_]+$", description="experiment/variant of the teacher")
    targets: Literal["embeddings", "logits", "class_means"] = "embeddings"
    weight: float = Field(1.0, ge=0, description="of the teacher's term in the loss")
    labels_weight: float = Field(1.0, ge=0, description="of the labels' term; 0: trained without labels")
    temperature: float = Field(4.0, gt=0, description="of the soft logits (Hinton, Vinyals and Dean 2015)")


class LifelongOptions(Strict):
    """Classes arrive in groups; the duration is that of each group."""

    groups: int = Field(ge=2)
    replay: int | None = Field(0, ge=0, description="images kept per old class; null: all of them (joint training)")
    sums: bool = later(
        False,
        as_before=False,
        description="train the first group alone; then the network stays as it is, and its read-out takes each new group in "
        "by the sums of the closed form: one pass over the new images, no old images and no step",
    )


class Resources(Strict):
    """What a job asks for. They do not change a result, so they are left out of a run's digest."""

    gpu: int = Field(0, ge=0, description="over all nodes; each gets a process of its own")
    nodes: int = Field(1, ge=1, description="that share the GPUs evenly")
    cpus_per_task: int = Field(1, ge=1, description="per node")
    mem_mb: int = Field(4000, ge=1, description="per node")
    runtime: int = Field(30, ge=1, description="minutes that the first attempt asks for")
    runtime_limit: int = Field(1440, ge=1, description="minutes that later attempts ask for at most")

    warning: int = Field(
        300, ge=0, description="seconds before the time limit at which the run is told to save and end"
    )

    def runtime_of(self, attempt: int) -> int:
        """Minutes for the ``attempt``-th job of a run, from 1: a run that needed another one gets longer each time."""
        return max(self.runtime, min(self.runtime * attempt, self.runtime_limit))

    def warning_of(self, attempt: int) -> int:
        """Seconds before the time limit at which that job is to be warned: no more than a tenth of it."""
        return min(self.warning, self.runtime_of(attempt) * 6)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.gpu % self.nodes or (self.nodes > 1 and not self.gpu):
            raise ValueError(f"resources.gpu ({self.gpu}) must be a multiple of resources.nodes ({self.nodes})")
        return self
