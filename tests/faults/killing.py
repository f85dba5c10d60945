"""Kill a training again and again, at moments by chance, and see that nothing of it is lost.

    python -m tests.faults.killing --kills 100

A row that a reader saw in metrics.jsonl must be there ever after, unchanged but for its times; there is a whole checkpoint
whenever there was one; and the run that was killed so often ends with the weights of one that was left alone.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lsc.training import records
from lsc.training.checkpoints import LAST, PREVIOUS, read_whole
from lsc.training.loop import train
from tests.conftest import tiny_run


def begin(folder: Path, duration: str) -> BaseProcess:
    """A training in a process of its own, which is born with everything imported."""
    process = get_context("fork").Process(target=_train, args=(folder, duration))
    process.start()
    return process


def _train(folder: Path, duration: str) -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    train(tiny_run(training={"duration": duration, "checkpoint_minutes": 0.001}), folder)


def settled(row: dict[str, Any]) -> dict[str, Any]:
    """What a second start repeats of a row."""
    return {key: value for key, value in row.items() if key not in records.TIMINGS}


def kill_often(
    folder: Path, kills: int, *, seed: int = 0, duration: str = "40 epochs", longest: float = 1.0
) -> tuple[int, int]:
    """Kill a training ``kills`` times, unless it ends before, then let it end.

    Args:
        longest: seconds of life of a training that is to be killed.

    Returns:
        the number of kills, and that of rows that were lost.

    Raises:
        AssertionError: a checkpoint was damaged, or the weights are others than those of a training left alone.
    """
    chance = random.Random(seed)
    run, alone = folder / "killed", folder / "alone"
    seen: dict[int, dict[str, Any]] = {}
    lost = killed = 0
    for number in range(kills + 1):
        process = begin(run, duration)
        if number < kills:
            time.sleep(chance.uniform(0.02, longest))
            process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
        killed += process.exitcode != 0
        rows = {row["epoch"]: settled(row) for row in records.read_rows(run / records.METRICS)}
        # What a kill finds written but not yet in a checkpoint is trained again, to the same row.
        lost += sum(1 for epoch, row in rows.items() if epoch in seen and seen[epoch] != row)
        whole = [read_whole(path) for name in (LAST, PREVIOUS) if (path := run / "checkpoints" / name).exists()]
        kept = {row["epoch"] for state in whole[:1] for row in state["progress"]["rows"]}
        lost += sum(1 for epoch in kept if epoch not in rows)
        seen |= rows
        if process.exitcode == 0:
            break
    final = [row["epoch"] for row in records.read_rows(run / records.METRICS)]
    lost += len(set(seen) - set(final)) + (final != list(range(1, len(final) + 1)))
    other = begin(alone, duration)
    other.join()
    for name in (records.ENCODER, records.OBJECTIVE):
        assert (run / name).read_bytes() == (alone / name).read_bytes(), f"{name}: other weights than without kills"
    return killed, lost


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        killed, lost = kill_often(Path(place), wanted.kills, seed=wanted.seed, duration=f"{8 * wanted.kills} epochs")
    print(f"{killed} kills, {lost} rows lost")
