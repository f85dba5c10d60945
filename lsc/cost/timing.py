"""How costs are measured and written down."""

import math
import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

# The profiler's library reports its every start and stop unless told before it is loaded.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch

from lsc.errors import UserError
from lsc.provenance import processor

Record = dict[str, Any]


def place_of(device: str) -> torch.device:
    """The device called cpu or cuda.

    Raises:
        UserError: another name, or a GPU that is not there.
    """
    if device not in ("cpu", "cuda"):
        raise UserError(f"--device {device!r}: use cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine has no usable GPU; leave it out")
    return torch.device(device)


def seconds(run: Callable[[], object], device: torch.device, least: float = 0.02) -> float:
    """Seconds that one call of ``run`` takes; short ones are repeated for ``least`` seconds and averaged."""
    calls, start = 0, _now(device)
    while True:
        run()
        calls += 1
        elapsed = _now(device) - start
        if elapsed >= least:
            return elapsed / calls


def least_seconds(runs: Mapping[Any, Callable[[], object]], device: torch.device, rounds: int = 10) -> dict[Any, float]:
    """Least seconds that a call of each of ``runs`` takes in ``rounds`` calls, all taking turns.

    What else the machine does only ever adds time, so the least is the cost of the call itself.
    """
    least = dict.fromkeys(runs, math.inf)
    for _ in range(rounds):
        for key, run in runs.items():
            start = _now(device)
            run()
            least[key] = min(least[key], _now(device) - start)
    return least


def turn(runs: Mapping[Any, Callable[[], object]], device: torch.device, seed: int) -> dict[Any, float]:
    """Seconds that each of ``runs`` takes, called once each in a random order: what one leaves to the next evens out."""
    taken = {}
    for key in random.Random(seed).sample(list(runs), len(runs)):
        start = _now(device)
        runs[key]()
        taken[key] = _now(device) - start
    return taken


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Most memory that tensors made during ``run`` take at one time, beyond what was there before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    changes = [e.nbytes() for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    peak = total = 0
    for change in changes:
        total += change
        peak = max(peak, total)
    return peak


def machine(device: torch.device) -> Record:
    """On what the measurement was made."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
