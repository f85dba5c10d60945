"""Things by name: objectives, encoders, data sets. One line of a registry is all that the library knows of each."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lsc.errors import UserError

# What a name stands for is part of a run's code by itself; see lsc.training.code.
CHANGES_NO_RESULT = True


class Registry(Mapping[str, Any]):
    """Names and what they stand for, imported when it is asked for.

    Besides the names of the registry, ``module:attribute`` stands for that attribute of a module which can be imported,
    or which lies as ``module.py`` in the current folder: so an addition of one's own needs no change of the library.

    Args:
        kind: what is named, for messages: "objective".
        entries: name -> "module:attribute".
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def add(self, name: str, target: str) -> None:
        """Give ``target``, written "module:attribute", a name of its own.

        Raises:
            ValueError: the name stands for something else.
        """
        if self._entries.setdefault(name, target) != target:
            raise ValueError(f"{self.kind} {name!r} is {self._entries[name]}")

    def target(self, name: str) -> str:
        """``module:attribute`` behind a name.

        Raises:
            UserError: the name is unknown; a near one is suggested.
        """
        if name in self._entries:
            return self._entries[name]
        if ":" in name:
            return name
        near = get_close_matches(name, self._entries, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"unknown {self.kind} {name!r}; known are {', '.join(self._entries)}, and module:attribute for your own{meant}"
        )

    def __getitem__(self, name: str) -> Any:
        module_name, _, attribute = self.target(name).partition(":")
        module = _import(module_name, self.kind, name)
        try:
            return getattr(module, attribute)
        except AttributeError:
            raise UserError(f"{self.kind} {name!r}: {module_name} has no {attribute!r}") from None

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries


def _import(module: str, kind: str, name: str) -> Any:
    top = module.partition(".")[0]
    own = Path.cwd() / f"{top}.py"
    try:
        if importlib.util.find_spec(top) is None and own.is_file():
            # Last, and for this import alone: nothing in the current folder can stand in for a module of the library.
            sys.path.append(str(own.parent))
            try:
                return importlib.import_module(module)
            finally:
                sys.path.remove(str(own.parent))
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != top:
            raise
        if module == f"{top}.py":
            raise UserError(
                f"{kind} {name!r}: the file is named without its ending: {name.replace('.py', '', 1)}"
            ) from None
        raise UserError(
            f"{kind} {name!r}: there is no module {module!r} to import; put {top}.py into the current folder or install it"
        ) from None
