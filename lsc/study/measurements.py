"""The cost block of a study: what chapter 7 measures."""

from typing import Annotated, Literal

from pydantic import Field

from lsc.encoders import ENCODERS
from lsc.settings import Strict, block_of, later, named_block
from lsc.training.options import EncoderBlock, Resources


class StepCost(Strict):
    """What ``lsc cost step`` measures: one encoder's training step against the number of classes."""

    encoder: named_block(ENCODERS, "encoder", base=EncoderBlock, usual="small_cnn") = Field(  # type: ignore[valid-type]
        default_factory=lambda: block_of(ENCODERS, "small_cnn", EncoderBlock, width=16)
    )
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
    readout_hidden: int | None = later(
        None,
        as_before=None,
        ge=1,
        description="width of the hidden layer with which the last layer in closed form is measured; null: it is not",
    )


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
