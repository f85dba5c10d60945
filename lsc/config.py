"""Configuration: what a study runs. One model is the truth; every error names the key.

A study file gives experiments; an experiment gives the settings that its variants share (``run``) and what each variant
changes (``variants``). :meth:`Study.run` merges them into one :class:`Run`, which holds everything a training needs.
Nothing here imports torch, so the workflow reads it in an instant.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema, ValidationError, model_validator
from pydantic_core import core_schema

from lsc.data.options import DataOptions
from lsc.errors import UserError

Model = TypeVar("Model", bound=BaseModel)

# A chapter's number orders the notebooks; a chapter without runs has no experiment block.
CHAPTERS = ("centers", "low_dim", "high_dim", "million_classes", "distillation", "lifelong", "cost", "claims")


class Duration:
    """A length of training in epochs, steps or examples, converted to steps in one place.

    Written as ``20 epochs``, ``500 steps`` or ``100000 examples``.
    """

    _FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(epoch|step|example)s?\s*")

    def __init__(self, text: str):
        match = self._FORM.fullmatch(text)
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


DurationField = Annotated[Duration, GetPydanticSchema(_duration_schema)]


class Strict(BaseModel):
    """A block of the configuration: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EncoderOptions(Strict):
    """The network from image to embedding; see :func:`lsc.encoders.build_encoder`."""

    name: Literal["small_cnn", "resnet18", "resnet50", "vit_ti", "vit_s", "vit_b"] = "small_cnn"
    hidden: int | None = Field(
        None, ge=1, description="width of the projection's hidden layer; null: linear projection"
    )
    width: int | None = Field(None, ge=1)
    depth: int | None = Field(None, ge=1)
    heads: int | None = Field(None, ge=1)
    patch: int = Field(4, ge=1, description="side of a ViT's patches in pixels")
    stem: Literal["linear", "conv"] = Field("linear", description="what makes a ViT's patches")
    norm: Literal["batch", "group"] = "batch"
    small_images: bool = Field(True, description="ResNets without the stride and pooling in front")


class CentersOptions(Strict):
    """The predefined vectors of the classes; see :class:`lsc.centers.Centers`."""

    system: str = Field(
        "A", description="A, V21, V22, V<p><m>, A_intrinsic, simplex, orthoplex, gaussian, polygon or teacher"
    )
    dim: int | None = Field(None, ge=1, description="latent dimension; null: the least that holds the classes")
    assignment: Literal["shuffled", "ordered", "similarity"] = "shuffled"
    perturbation: float = Field(0.0, ge=0, lt=1)
    radius: float | None = Field(None, gt=0)


class CrossEntropyOptions(Strict):
    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1)


class EuclideanOptions(Strict):
    name: Literal["euclidean"]
    cluster_radius: float | None = Field(None, gt=0)


class CosineOptions(Strict):
    name: Literal["cosine"]


class OrbitSoftmaxOptions(Strict):
    name: Literal["orbit_softmax"]
    normalize: bool = True
    scale: float | None = Field(None, gt=0)
    learn_scale: bool = True
    margin: float = Field(0.0, ge=0, lt=1)


class PartialFCOptions(Strict):
    name: Literal["partial_fc"]
    sample_rate: float = Field(0.1, gt=0, le=1, description="share of the classes that a step uses")
    scale: float = Field(64.0, gt=0)
    margin: float = Field(0.0, ge=0, lt=1)


ObjectiveOptions = Annotated[
    CrossEntropyOptions | EuclideanOptions | CosineOptions | OrbitSoftmaxOptions | PartialFCOptions,
    Field(discriminator="name"),
]


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
    clip_norm: float | None = Field(1.0, gt=0)
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of the averaged weights, which are then evaluated; less in the first steps"
    )
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    deterministic: bool = Field(
        True, description="identical weights from the same seed and machine; false is faster on a GPU"
    )
    evaluate_every: int = Field(1, ge=1, description="epochs between evaluations")
    evaluation_batch_size: int = Field(512, ge=1)
    checkpoint_minutes: float = Field(15, gt=0, description="besides the end of every epoch and a warning signal")
    embeddings: int = Field(1000, ge=0, description="test images whose embeddings are kept for the figures")
    neighbours: int = Field(0, ge=0, description="k of the nearest-neighbour transfer accuracy; 0: not measured")
    transfer: DataOptions | None = Field(
        None, description="set that it is measured on; null: the run's own, or for instances the set that they are of"
    )


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


class Run(Strict):
    """One training with one seed: all that its result depends on."""

    experiment: str = "own"
    variant: str = "own"
    seed: int = Field(0, ge=0, lt=2**63)
    data: DataOptions
    encoder: EncoderOptions = EncoderOptions()
    centers: CentersOptions = CentersOptions()
    objective: ObjectiveOptions = CrossEntropyOptions()
    training: TrainingOptions = TrainingOptions()
    teacher: TeacherOptions | None = None
    lifelong: LifelongOptions | None = None
    resources: Resources = Resources()

    @property
    def name(self) -> str:
        return f"{self.experiment}/{self.variant}/seed_{self.seed}"

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
        if self.objective.name == "partial_fc" and processes > 1:
            raise UserError("objective partial_fc: trains the rows that one process sampled; use --processes 1")

    @property
    def digest(self) -> str:
        """Twelve hex digits of the SHA-256 of everything that the result depends on."""
        settings = {key: value for key, value in self.plain().items() if key != "resources"}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.training.batch_size % self.training.accumulate:
            raise ValueError(
                f"training.batch_size ({self.training.batch_size}) must be a multiple of training.accumulate "
                f"({self.training.accumulate})"
            )
        options = self.training
        if self.objective.name == "partial_fc" and (
            options.accumulate > 1 or options.optimizer != "adamw" or options.ema is not None
        ):
            raise ValueError(
                "objective.name partial_fc trains the rows of one sample by AdamW: leave training.accumulate at 1, "
                "training.optimizer at adamw and training.ema out, or take cross_entropy"
            )
        if self.lifelong is not None and self.centers.assignment == "similarity":
            raise ValueError(
                "centers.assignment similarity looks at all classes, most of which are still to come in lifelong learning: "
                "use shuffled"
            )
        if options.transfer is not None and not options.neighbours:
            raise ValueError("training.transfer is measured by nearest neighbours: set training.neighbours, e.g. to 5")
        if self.teacher is not None and self.teacher.targets == "logits" and self.objective.name != "cross_entropy":
            raise ValueError("teacher.targets 'logits' needs the objective cross_entropy")
        if self.teacher is not None and self.teacher.labels_weight == 0:
            trained = self.teacher.targets == "logits" or self.objective.name in ("cosine", "euclidean")
            if self.teacher.targets == "class_means" or not trained:
                raise ValueError(
                    f"teacher.labels_weight 0 leaves the objective {self.objective.name!r} with targets "
                    f"{self.teacher.targets!r} nothing to learn; give the labels a weight, or take cosine and embeddings"
                )
        if self.centers.system == "teacher" and self.teacher is None:
            raise ValueError("centers.system 'teacher' needs a teacher block that names the run")
        return self


class StepCost(Strict):
    """What ``lsc cost step`` measures: one encoder's training step against the number of classes."""

    encoder: EncoderOptions = EncoderOptions(name="small_cnn", width=16)
    channels: int = Field(1, ge=1)
    image_size: int = Field(32, ge=8)
    batch: int = Field(64, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    system: str = Field("V33", description="A, V21, V22 or another V<p><m>; one that holds all the classes in dim")
    dim: int = Field(64, ge=1, description="the same for all numbers of classes")
    class_counts: list[Annotated[int, Field(ge=2)]] = Field([10**3, 10**4, 10**5, 10**6, 10**7], min_length=1)
    center_class_counts: list[Annotated[int, Field(ge=2)]] = Field([10**9], description="for predefined centers alone")
    rivals: list[Literal["cross_entropy", "partial_fc", "arcface", "proxy_nca"]] = [
        "cross_entropy", "partial_fc", "arcface", "proxy_nca"
    ]  # fmt: skip
    sample_rate: float = Field(0.1, gt=0, le=1, description="share of the rows that Partial FC uses in a step")
    repetitions: int = Field(40, ge=1, description="turns in which every step is taken once")
    patience: float = Field(
        5, gt=0, description="seconds for the turns of one layer of one size; three are taken at least"
    )
    memory_gb: float | None = Field(None, gt=0, description="a step expected to need more is predicted, not measured")
    slowest_step: float = Field(10, gt=0, description="seconds; a step expected to take longer is predicted")


class DecodeCost(Strict):
    """What ``lsc cost decode`` measures: the nearest class of an embedding, for each k of ``top``."""

    system: str = Field("A", description="A, V21, V22 or another V<p><m>")
    classes: int = Field(100_000, ge=2)
    cases: list[Literal["full", "half", "perturbed"]] = ["full", "half", "perturbed"]
    cosines: list[Annotated[float, Field(gt=0, le=1)]] = [0.9]
    batch: int = Field(64, ge=1)
    top: list[Annotated[int, Field(ge=1)]] = [1, 5]
    repetitions: int = Field(3, ge=1)
    hnsw_classes: int = Field(20_000, ge=2, description="classes of the approximate index, which is slow to build")


class CostOptions(Strict):
    """The measurements of chapter 7. Their jobs need the machine for themselves."""

    step: StepCost = StepCost()
    decode: DecodeCost = DecodeCost()
    resources: Resources = Resources()


class Experiment(Strict):
    """The variants of one experiment; the settings of ``run`` hold for each unless it says otherwise."""

    seeds: list[int] | None = Field(None, min_length=1)
    run: dict[str, Any] = {}
    variants: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], dict[str, Any]] = {}


class Study(Strict):
    """All experiments at one scale. ``chapters`` selects what is run."""

    study: str = Field(pattern=r"^[a-z0-9_]+$")
    chapters: list[Literal[CHAPTERS]]  # type: ignore[valid-type]
    seeds: list[int] = Field([0], min_length=1)
    records: Literal["measured", "reference"] = "measured"
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
        return _validated(Run, settings, f"experiments.{experiment}.variants.{variant}")

    def check(self) -> None:
        """Resolve every run, so that a mistake in any of them shows at once."""
        for experiment in self.experiments:
            for name in self.run_names(experiment):
                run = self.run_of(name)
                if run.teacher is not None and f"{run.teacher.run}/seed_{run.seed}" not in [
                    other for block in self.experiments for other in self.run_names(block)
                ]:
                    raise UserError(
                        f"experiments.{experiment}.variants.{run.variant}.teacher.run: the study has no run "
                        f"{run.teacher.run}/seed_{run.seed}"
                    )


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``change`` laid over it: blocks are merged, everything else is replaced.

    A block that names another thing (``name: ...``) replaces the old one whole, since the old one's settings are not its.
    """
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value.get("name", old.get("name")) == old.get("name"):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def _known(names: Any) -> str:
    return f"; it has {', '.join(map(str, names))}" if names else ""


def _validated(model: type[Model], settings: Any, where: str) -> Model:
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise UserError(_first_problem(error, where)) from None


def _first_problem(error: ValidationError, where: str) -> str:
    problem = error.errors()[0]
    # Pydantic puts the chosen member of a union into the path ("data", "digits", "size"): a user never wrote that.
    loc = [str(part) for part in problem["loc"]]
    path = [
        part
        for before, part in zip(["", *loc], loc, strict=False)
        if before not in ("data", "objective", "of", "transfer")
    ]
    key = ".".join([where, *path]) if where else ".".join(path)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "unknown key"
    elif problem["type"] == "missing":
        message = "missing key"
    elif problem["type"] != "value_error" and not isinstance(problem["input"], dict):
        message = f"{message}, got {problem['input']!r}"
    more = error.error_count() - 1
    return f"{key}: {message}" + (f" (and {more} more)" if more else "")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; a missing, unreadable or wrong file is one line."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give the path of a configuration file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold keys and values, e.g. 'study: demo'")
    return content


def study_from(settings: dict[str, Any], where: str = "") -> Study:
    """The study in a mapping, every run of it checked."""
    study = _validated(Study, settings, where)
    study.check()
    return study


def read_study(path: Path) -> Study:
    """The study in a YAML file."""
    return study_from(read_yaml(path), str(path))


def run_from(settings: dict[str, Any], where: str = "") -> Run:
    """The run in a mapping."""
    return _validated(Run, settings, where)


def read_run(path: Path) -> Run:
    """The run in a YAML file, such as the ``config.yaml`` of a run's folder."""
    return run_from(read_yaml(path), str(path))
