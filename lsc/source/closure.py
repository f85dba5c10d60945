"""Which modules a computation uses: what it imports, and what that imports, name by name.

A name is followed to the module that defines it, so that of a package only what is asked for counts: an objective beside
the one that a run uses is none of its code, although a package's ``__init__`` imports them all.
"""

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lsc.source.computing import Source
from lsc.source.kept import source_of

CHANGES_NO_RESULT = True

_PACKAGE = Path(__file__).resolve().parent.parent


def digest_of(names: Iterable[str], package: Path = _PACKAGE) -> str:
    """Twelve hex digits over what the modules behind ``names``, and all that they use of the library, compute.

    A file is read once in a process, the first time that it counts.

    Args:
        names: "module" or "module:attribute"; of the library, or of one's own: then the modules beside it count as well.
        package: folder of the library.
    """
    return _digest(tuple(sorted(set(names))), package, Path.cwd())


@cache
def _digest(names: tuple[str, ...], package: Path, folder: Path) -> str:
    found = Closure(package, folder)
    for name in names:
        module, _, attribute = name.partition(":")
        found.start(module, tuple(filter(None, attribute.split("."))))
    content = "".join(f"{module}\n{computes}\n" for module, computes in sorted(found.computing.items()))
    return hashlib.sha256(f"{' '.join(names)}\n{content}".encode()).hexdigest()[:12]


class Closure:
    """The modules that have been followed.

    Attributes:
        computing: module -> what it computes.
    """

    def __init__(self, package: Path, folder: Path) -> None:
        self._folder = folder
        self._roots = {package.name: package.parent}
        self._origins: dict[tuple[str, tuple[str, ...]], str] = {}
        self.computing: dict[str, str] = {}

    def start(self, module: str, names: tuple[str, ...] = ()) -> None:
        """Follow from here, also where the module is of somebody else's package: then that counts as well."""
        top = module.partition(".")[0]
        if top not in self._roots and (root := _installed(top)):
            self._roots[top] = root
        self.follow(module, names)

    def follow(self, module: str, names: tuple[str, ...] = ()) -> str:
        """Count the module that defines ``module.names``, and what it uses; nothing of other people's packages.

        Returns:
            where the first of the names is defined, as "module:name".
        """
        while names and self._find(f"{module}.{names[0]}"):
            module, names = f"{module}.{names[0]}", names[1:]
        here = f"{module}:{names[0] if names else ''}"
        path = self._find(module)
        if path is None or (module, names) in self._origins:
            return self._origins.get((module, names), here)
        self._origins[module, names] = here
        source = _read(path, module if path.name == "__init__.py" else module.rpartition(".")[0])
        if names and names[0] not in source.defines:
            elsewhere = source.imports.get(names[0]) or _imported_when_asked_for(source, names[0])
            for origin, name in elsewhere:
                self._origins[module, names] = self.follow(origin, (*([name] if name else []), *names[1:]))
            if elsewhere:
                return self._origins[module, names]
        if module not in self.computing and source.computes is not None:
            self.computing[module] = source.computes  # before what it uses, which may use it
            self.computing[module] += f"\n{' '.join(self._meanings(source))}"
        return here

    def _meanings(self, source: Source) -> list[str]:
        """What each imported name that a module computes with stands for; all of it is followed."""
        meanings = set()
        for local, *attributes in source.uses:
            for module, name in source.imports[local]:
                names = (*([name] if name else []), *attributes)
                origin = self.follow(module, names)
                meanings.add(f"{local}={origin if self._find(module) else f'{module}:{name}'}")
        return sorted(meanings)

    def _find(self, module: str) -> Path | None:
        """The file of a module of the library, of a package that was asked for by name, or of the current folder."""
        top, _, below = module.partition(".")
        if top in self._roots:
            return _file(self._roots[top], module)
        beside = _file(self._folder, top)
        # A folder of that name may be anything; a file beside one's own is one's own as well.
        return beside if not below and beside is not None and beside.name != "__init__.py" else None


def _imported_when_asked_for(source: Source, name: str) -> list[tuple[str, str | None]]:
    """Where a name comes from that a package imports when it is asked for: "module" or "module:attribute" in its lists."""
    module, _, attribute = source.strings.get(name, "").partition(":")
    return [(module, attribute or name)] if module else []


def _installed(top: str) -> Path | None:
    """The folder that an installed module or package lies in."""
    try:
        spec = find_spec(top)
    except ValueError:
        return None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    return path.parent.parent if path.name == "__init__.py" else path.parent


@cache
def _read(path: Path, package: str) -> Source:
    return source_of(path.read_text(encoding="utf-8"), package)


@cache
def _file(folder: Path, module: str) -> Path | None:
    place = folder.joinpath(*module.split("."))
    for path in (place / "__init__.py", place.with_suffix(".py")):
        if path.is_file():
            return path
    return None
