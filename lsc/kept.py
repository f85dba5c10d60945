"""What was worked out before, in the user's cache folder, where to look it up is quicker.

An entry is named by everything that it follows from, so that none is ever stale. Of very many the older half is removed. Where
the folder cannot be written, nothing is kept.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from lsc.errors import UserError
from lsc.files import write_bytes

CHANGES_NO_RESULT = True


def entry_of(kind: str, *parts: str) -> Path | None:
    """The file of what follows from ``parts``; None where the user has neither a cache nor a home."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))  # as everywhere, a cache has to be a whole path
    try:
        folder = (named if named.is_absolute() else Path.home() / ".cache") / "lsc" / kind
    except RuntimeError:
        return None
    return folder / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}.json"


def keep(entry: Path, content: str, most: int) -> None:
    """Write an entry, if that can be; where there are ``most`` of its kind, the older half goes first."""
    with suppress(OSError, UserError):
        entries = list(entry.parent.glob("*.json"))
        if len(entries) >= most:
            for old in sorted(entries, key=lambda path: path.stat().st_mtime)[: most // 2]:
                old.unlink(missing_ok=True)
        write_bytes(entry, content.encode(), synced=False)
