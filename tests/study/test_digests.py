"""Digests of settings: a key that came later changes none that does not use it, a changed default does."""

from typing import Annotated, Any

import pytest
from pydantic import Field, create_model

from lsc.parameters import Setting
from lsc.registry import Registry
from lsc.settings import Block, Strict, digest, later, named_block


class Old(Strict):
    width: int = 3


class Extended(Strict):
    width: int = Field(3, ge=1, description="of it")
    bias: bool = later(True, as_before=True)
    depth: int | None = later(2, as_before=None)


class OtherDefault(Strict):
    width: int = 4


def test_a_key_that_came_later_changes_no_digest_where_it_means_as_before() -> None:
    assert digest(Extended(depth=None)) == digest(Old())
    assert digest(Extended(width=5, depth=None)) == digest(Old(width=5))
    assert digest(Extended(depth=None, bias=False)) != digest(Old())


def test_a_default_that_means_something_new_changes_the_digest() -> None:
    assert digest(Extended()) != digest(Old())
    assert digest(OtherDefault()) != digest(Old())
    assert digest(OtherDefault(width=3)) == digest(Old())


def old(image_shape: Any, width: int = 3) -> None:
    """What a block names, before."""


def extended(
    image_shape: Any,
    width: Annotated[int, Setting("of it", ge=1)] = 3,
    bias: Annotated[bool, Setting("added to it", as_before=True)] = True,
) -> None:
    """After it was given another setting."""


def other_default(image_shape: Any, width: int = 4) -> None:
    """After it was given another default."""


class OldOptions(Block):
    """What a block names, as a model."""

    width: int = 3


class ExtendedOptions(Block):
    """After it was given another setting."""

    width: int = 3
    bias: bool = later(True, as_before=True)


class OtherDefaultOptions(Block):
    """After it was given another default."""

    width: int = 4


def outer_digest(thing: str, depth: int, **settings: Any) -> str:
    """The digest of blocks within each other, ``depth`` of them around the block of a thing."""
    registry = Registry("thing", {"it": f"{__name__}:{thing}"})
    model: Any = create_model("Innermost", __base__=Strict, thing=(named_block(registry, "thing"), ...))
    plain: dict[str, Any] = {"thing": {"name": "it", **settings}}
    for _ in range(depth):
        model = create_model("Outer", __base__=Strict, block=(model, ...))
        plain = {"block": plain}
    return digest(model.model_validate(plain))


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [("old", "extended", "other_default"), ("OldOptions", "ExtendedOptions", "OtherDefaultOptions")],
)
def test_it_is_the_same_in_a_named_block(before: str, after: str, changed: str, depth: int) -> None:
    assert outer_digest(after, depth) == outer_digest(before, depth)
    assert outer_digest(after, depth, width=7) == outer_digest(before, depth, width=7)
    assert outer_digest(after, depth, bias=False) != outer_digest(before, depth)
    assert outer_digest(changed, depth) != outer_digest(before, depth)
    assert outer_digest(changed, depth, width=3) == outer_digest(before, depth)
