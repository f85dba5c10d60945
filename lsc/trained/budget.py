"""How long a training may be for a time that somebody has: a few steps are taken and thrown away, and counted up."""

import re
import time
from dataclasses import dataclass

import torch

from lsc.data.base import Dataset
from lsc.errors import UserError
from lsc.training.building import task_for
from lsc.training.devices import make_fabric
from lsc.training.last_layer import LastLayer
from lsc.training.optimization import Learner
from lsc.training.options import Duration
from lsc.training.outcome import final_split, scored_split
from lsc.training.phases import plan_phases
from lsc.training.run import Run

# It chooses a duration, and that is a setting.
CHANGES_NO_RESULT = True

# Of the time, what is kept for checkpoints, for slow moments, and for the page at the end.
_RESERVE = 0.15
# Training for longer than so many times what the rules advise is a waste: the images are few.
_MOST = 4


def seconds_of(text: str) -> float:
    """``90``, ``90s``, ``10m``, ``1.5h`` in seconds.

    Raises:
        UserError: it is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    if match is None or float(match[1]) == 0:
        raise UserError(f"--time {text}: write it as 90s, 10m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


@dataclass(frozen=True)
class Pace:
    """What a run costs on this machine, in seconds.

    Attributes:
        step: of an optimisation step, loading included.
        epoch: of an epoch's beginning: loading processes start, the first images come.
        image: of an image that is evaluated.
    """

    step: float
    epoch: float
    image: float


def pace_of(run: Run, dataset: Dataset, device: str, most: float = 10) -> Pace:
    """Take some steps of a run as it would train, and forget them.

    Args:
        most: seconds that the steps may take, beyond the first two.
    """
    fabric = make_fabric(run.training, device)
    torch.manual_seed(run.seed)
    phase = plan_phases(run, dataset)[0]
    task = task_for(run, dataset)
    last = None
    if run.readout is not None and run.readout.sums == "running":
        last = LastLayer(task, run, run.readout, phase, fabric, lambda: None)
    learner = Learner(task, fabric, run.training, last)
    learner.model.train()
    marks = [time.perf_counter()]
    for batch in dataset.train_batches(run.training.batch_size, seed=run.seed, epoch=0, device=fabric.device):
        learner.step(batch, 1e-6)
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
        if len(marks) > 13 or (len(marks) > 3 and marks[-1] - marks[2] > most):
            break
    steady = marks[2:] if len(marks) > 3 else marks[1:] if len(marks) > 2 else marks
    step = (steady[-1] - steady[0]) / max(1, len(steady) - 1)
    epoch = max(0.0, marks[1] - marks[0] - step)
    began, count = time.perf_counter(), min(64, dataset.size("train"))
    task.eval()
    with torch.no_grad():
        for batch in dataset.eval_batches("train", 32, device=fabric.device, subset=torch.arange(count)):
            task.encoder(batch.images)
    return Pace(step, epoch, (time.perf_counter() - began) / count)


def _moved(run: Run, dataset: Dataset) -> int:
    """Images that are looked at to give the classes centers that fit the network."""
    if run.centers.fit is None:
        return 0
    each = min(dataset.size("train"), run.centers.fit.per_class * dataset.num_classes)
    return sum(len(phase.moves) for phase in plan_phases(run, dataset)) * each


def fitted(
    run: Run, dataset: Dataset, pace: Pace, seconds: float, every: int | Duration | None = None
) -> tuple[dict[str, object], str]:
    """The training's settings for ``seconds``, and a line that says what they are.

    Args:
        every: epochs between evaluations, or a duration, where that is given.

    Raises:
        UserError: not even a step and the scoring of the result fit.
    """
    per_epoch = dataset.steps_per_epoch(run.training.batch_size)
    scored, final = scored_split(dataset), final_split(dataset)
    refitted = dataset.size("train") if run.readout is not None and run.readout.refit else 0
    at_the_end = pace.image * (refitted + 2 * dataset.size(final) + dataset.size(scored))
    left = seconds * (1 - _RESERVE) - at_the_end - pace.image * _moved(run, dataset)
    between = (
        every.steps(per_epoch, run.training.batch_size) if isinstance(every, Duration) else (every or 0) * per_epoch
    )
    scoring = pace.image * dataset.size(scored)
    evaluations = min(20, max(1, int(0.2 * left / max(scoring, 1e-9)))) if every is None else 0
    step = pace.step + pace.epoch / per_epoch + (0.0 if every is None else scoring / max(1, between))
    steps = int((left - evaluations * scoring) / step)
    if steps < 1:
        raise UserError(
            f"--time: {seconds:.0f} seconds are too few; to go through the images once and score the result takes "
            f"{at_the_end + step * per_epoch:.0f} here"
        )
    advised = run.training.duration.steps(per_epoch, run.training.batch_size)
    note = ""
    if steps > _MOST * advised:
        steps, note = _MOST * advised, ", and more would be a waste with so few images"
    elif steps < advised / 2:
        note = f"; the rules advise {advised:,}, so give it more time if the result is poor"
    epochs = -(-steps // per_epoch)
    settings: dict[str, object] = {
        "duration": f"{steps} steps",
        "warmup": f"{max(1, steps // 10)} steps",
        "evaluate_every": every or max(1, epochs // evaluations),
    }
    taken = f"{steps:,} steps ({steps / per_epoch:.1f} epochs)"
    line = f"time: {pace.step:.2g} s for a step here, so {taken} in {seconds:.0f} s{note}"
    return settings, line
