"""What torch's compiler is told about our functions, without importing it: that takes longer than everything else of ours."""

from collections.abc import Callable
from typing import Any, TypeVar

CHANGES_NO_RESULT = True

Function = TypeVar("Function", bound=Callable[..., Any])


def constant_in_traces(function: Function) -> Function:
    """A function of numbers alone, whose result the compiler takes for a constant.

    As ``torch.compiler.assume_constant_result``, which imports the compiler to set this mark.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
