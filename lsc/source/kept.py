"""Sources that were read before, in the user's cache folder: to take a module apart takes longer than to look up the parts.

An entry is named by the whole content that it is of, and by that of the module that read it, so that none is ever stale. Of very
many the older half is removed. Where the folder cannot be written, nothing is kept.
"""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from lsc.errors import UserError
from lsc.files import write_bytes
from lsc.source import computing
from lsc.source.computing import Source, read_source

CHANGES_NO_RESULT = True

# Entries, of some 15 kB each, after which the older half is removed: those of some ten states of the whole library.
_MOST = 2000


def source_of(text: str, package: str) -> Source:
    """As :func:`~lsc.source.computing.read_source`."""
    folder = _folder()
    if folder is None:
        return read_source(text, package)
    entry = folder / f"{hashlib.sha256('|'.join([_reader(), package, text]).encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return _restored(json.loads(entry.read_bytes()))
    found = read_source(text, package)
    with suppress(OSError, UserError):
        _make_room(folder)
        write_bytes(entry, json.dumps(asdict(found) | {"defines": sorted(found.defines)}).encode(), synced=False)
    return found


def _restored(parts: dict[str, Any]) -> Source:
    imports = {local: [(module, name) for module, name in origins] for local, origins in parts["imports"].items()}
    uses = [tuple(chain) for chain in parts["uses"]]
    return Source(parts["computes"], imports, uses, frozenset(parts["defines"]), parts["strings"])


def _make_room(folder: Path) -> None:
    entries = list(folder.glob("*.json"))
    if len(entries) >= _MOST:
        for entry in sorted(entries, key=lambda path: path.stat().st_mtime)[: _MOST // 2]:
            entry.unlink(missing_ok=True)


def _folder() -> Path | None:
    """Of the entries; None where the user has neither a cache nor a home. As everywhere, a cache has to be a whole path."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (named if named.is_absolute() else Path.home() / ".cache") / "lsc" / "sources"
    except RuntimeError:
        return None


@cache
def _reader() -> str:
    return Path(computing.__file__).read_text()
