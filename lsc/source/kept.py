"""Sources that were read before: to take a module apart takes longer than to look up the parts.

An entry (:mod:`lsc.kept`) is named by the whole content that it is of, and by that of the module that read it.
"""

import json
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from lsc.kept import entry_of, keep
from lsc.source import computing
from lsc.source.computing import Source, read_source

CHANGES_NO_RESULT = True

# Entries, of some 15 kB each: those of some ten states of the whole library.
_MOST = 2000


def source_of(text: str, package: str) -> Source:
    """As :func:`~lsc.source.computing.read_source`."""
    entry = entry_of("sources", _reader(), package, text)
    if entry is None:
        return read_source(text, package)
    with suppress(OSError, ValueError, KeyError, TypeError):
        return _restored(json.loads(entry.read_bytes()))
    found = read_source(text, package)
    keep(entry, json.dumps(asdict(found) | {"defines": sorted(found.defines)}), _MOST)
    return found


def _restored(parts: dict[str, Any]) -> Source:
    imports = {local: [(module, name) for module, name in origins] for local, origins in parts["imports"].items()}
    uses = [tuple(chain) for chain in parts["uses"]]
    return Source(parts["computes"], imports, uses, frozenset(parts["defines"]), parts["strings"])


@cache
def _reader() -> str:
    return Path(computing.__file__).read_text(encoding="utf-8")
