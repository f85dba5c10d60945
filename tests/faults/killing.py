"""Kill a training again and again, at moments by chance, and see that nothing of it is lost.

    python -m tests.faults.killing --kills 100

A row that a reader saw in metrics.jsonl must be there ever after, unchanged but for its times; there is a whole checkpoint
whenever there was one; and the run that was killed so often ends with the weights of one that was left alone.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lsc.training import records
from lsc.training.checkpoints import LAST, PREVIOUS, read_whole
from tests.conftest import ROOT

SCRIPT = """
import sys
from pathlib import Path
from lsc.training.loop import train
from tests.conftest import tiny_run
print("begun", flush=True)
folder = Path(sys.argv[1])
train(tiny_run(training={"duration": sys.argv[2], "checkpoint_minutes": 0.001}), folder)
"""


def begin(folder: Path, duration: str) -> "subprocess.Popen[str]":
    """A training in a process of its own, once its imports are over."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", SCRIPT, str(folder), duration]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def settled(row: dict[str, Any]) -> dict[str, Any]:
    """What a second start repeats of a row."""
    return {key: value for key, value in row.items() if key not in records.TIMINGS}


def kill_often(folder: Path, kills: int, *, seed: int = 0, duration: str = "40 epochs") -> int:
    """Kill a training ``kills`` times, unless it ends before, then let it end; gives the number of rows that were lost.

    Raises:
        AssertionError: a checkpoint was damaged, or the weights are others than those of a training left alone.
    """
    chance = random.Random(seed)
    run, alone = folder / "killed", folder / "alone"
    seen: dict[int, dict[str, Any]] = {}
    lost = 0
    for number in range(kills + 1):
        process = begin(run, duration)
        if number < kills:
            time.sleep(chance.uniform(0.05, 1.5))
            process.send_signal(signal.SIGKILL)
        _, told = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), told
        rows = {row["epoch"]: settled(row) for row in records.read_rows(run / records.METRICS)}
        # What a kill finds written but not yet in a checkpoint is trained again, to the same row.
        lost += sum(1 for epoch, row in rows.items() if epoch in seen and seen[epoch] != row)
        whole = [read_whole(path) for name in (LAST, PREVIOUS) if (path := run / "checkpoints" / name).exists()]
        kept = {row["epoch"] for state in whole[:1] for row in state["progress"]["rows"]}
        lost += sum(1 for epoch in kept if epoch not in rows and (run / records.CONFIG).exists() and rows)
        seen |= rows
        if process.returncode == 0:
            break
    final = [row["epoch"] for row in records.read_rows(run / records.METRICS)]
    lost += len(set(seen) - set(final)) + (final != list(range(1, len(final) + 1)))
    other = begin(alone, duration)
    other.communicate()
    for name in (records.ENCODER, records.OBJECTIVE):
        assert (run / name).read_bytes() == (alone / name).read_bytes(), f"{name}: other weights than without kills"
    return lost


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        rows = kill_often(Path(place), wanted.kills, seed=wanted.seed, duration=f"{20 * wanted.kills} epochs")
    print(f"{wanted.kills} kills, {rows} rows lost")
