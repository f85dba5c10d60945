"""Where a number comes from: versions, hardware and commit."""

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent
_IMPORTED = time.monotonic()

CHANGES_NO_RESULT = True


def provenance() -> dict[str, Any]:
    """Versions, hardware and commit, as every summary carries them."""
    return {
        "versions": {name: _version(name) for name in ("lsc", "torch", "torchvision", "lightning-fabric", "numpy")}
        | {"python": platform.python_version()},
        "processor": processor(),
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name with the number of cores that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {usable_cores()} cores"


def usable_cores() -> int:
    """Cores that this process may use; where the system does not say so, those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_age() -> float:
    """Seconds since this process began; elsewhere than on Linux, since this module was imported."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return time.monotonic() - _IMPORTED
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(_PACKAGE), *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _commit() -> str | None:
    """The commit of the source tree, with a mark where it was changed since; None outside a git checkout."""
    # An installed package may lie inside somebody else's checkout: only our own counts.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _git("rev-parse", "--short=12", "HEAD")
    return f"{commit}-changed" if commit and _git("status", "--porcelain", "--untracked-files=no") else commit
