"""What a setting may be, written where it is used: in the signature of the thing that takes it.

A parameter with a default is a setting; one without is what the library itself hands over. So an objective's, an
encoder's or a data set's settings are declared once, next to the code that reads them, and the configuration, its
messages and its schema follow from there. Free of everything but the standard library.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

_ALWAYS = object()

# It makes settings, and these have a digest of their own.
CHANGES_NO_RESULT = True


@dataclass(frozen=True)
class Setting:
    """Description and limits of a setting, as metadata of its type: ``margin: Annotated[float, Setting("...", ge=0)]``.

    Args:
        description: of the setting, for people; it changes no result.
        ge, gt, le, lt: limits of a number, inclusive and exclusive.
        as_before: for a setting that came later than the thing it belongs to: the value that means what was done
            before it came. Runs with this value keep the digest that they had (:attr:`lsc.training.run.Run.digest`).
    """

    description: str = ""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    as_before: Any = _ALWAYS

    @property
    def came_later(self) -> bool:
        return self.as_before is not _ALWAYS


@dataclass(frozen=True)
class Parameter:
    """A parameter that is a setting: its type without metadata, its default, and what :class:`Setting` says of it."""

    annotation: Any
    default: Any
    setting: Setting


def settings_of(target: Callable[..., Any]) -> dict[str, Parameter]:
    """The settings of a class or function, by name: its parameters that have defaults."""
    function: Callable[..., Any] = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    hints = get_type_hints(function, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is inspect.Parameter.empty or name not in hints:
            continue
        metadata = getattr(hints[name], "__metadata__", ())
        setting = next((item for item in metadata if isinstance(item, Setting)), Setting())
        plain = hints[name].__origin__ if metadata else hints[name]
        found[name] = Parameter(plain, parameter.default, setting)
    return found
