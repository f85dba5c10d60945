"""Cost of a whole training step against the number of classes: what predefined centers add to an encoder, and what the
usual layers add.

Every step is forward, backward and AdamW of one and the same encoder on one batch of noise on the device, with another
objective each time. A repetition takes every step once, in random order, and keeps ratios within itself, so that they are
free of the machine's mood; what is left of it shows in the interval of their median (:mod:`lsc.cost.interval`).
"""

import gc
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lsc.centers import Centers
from lsc.cost.loss import OBJECTIVES
from lsc.cost.rivals import RIVALS, least_bytes
from lsc.cost.timing import Record, machine, peak_bytes, place_of, turn
from lsc.encoders import build_encoder
from lsc.encoders.closed_form import ClosedFormReadout
from lsc.objectives import Objective
from lsc.study.measurements import StepCost
from lsc.systems import parse_system
from lsc.training.devices import available_bytes

Step = Callable[[], None]
BARE = ("bare", 0)
# Cosine centers whose read-out's last layer is solved for.
CLOSED_FORM = "cosine_closed_form"
# Of the closed form, as ReadoutOptions has them: steps from one solution to the next, and the half-life of its sums.
EVERY, HALF_LIFE = 20, 30
# Of a layer whose step is long so many repetitions are made, whatever the patience.
_AT_LEAST = 3
# Of the memory that is free, the share that a step may be expected to fill before it is left out.
_SHARE = 0.8


class Bench:
    """The encoder and its batch, which all steps share, and the optimiser of those that train nothing else."""

    def __init__(self, options: StepCost, device: torch.device):
        self.options, self.device = options, device
        generator = torch.Generator().manual_seed(0)
        shape = (options.channels, options.image_size, options.image_size)
        self.images = torch.randn(options.batch, *shape, generator=generator).to(device)
        settings = options.encoder.model_dump(exclude={"weights"})
        self.encoder = build_encoder(settings.pop("name"), shape, options.dim, **settings).to(device)
        self.optimizer = _adamw(self.encoder)

    def labels(self, num_classes: int) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randint(num_classes, (self.options.batch,), generator=generator).to(self.device)

    def step(
        self, objective: nn.Module | None, num_classes: int, readout: ClosedFormReadout | None = None
    ) -> tuple[Step, Callable[[], int]]:
        """A training step with ``objective``; None: the mean of the embeddings, which costs next to nothing.

        With ``readout`` the last layer is not trained by the step, which takes its batch into the sums instead. With the
        step comes a function for the bytes that stay from one to the next: the encoder's and the objective's weights and
        moments, and the sums.
        """
        labels = self.labels(num_classes) if objective is not None else None
        optimizer = self.optimizer
        if objective is not None and any(True for _ in objective.parameters()):
            optimizer = _adamw(self.encoder, objective)  # one for both, as in training
        low = self.options.precision == "bfloat16"

        def step() -> None:
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low):
                embeddings, hidden = self.encoder(self.images, with_hidden=True)
                loss = embeddings.float().mean() if objective is None else objective.loss(embeddings, labels)  # type: ignore[operator]
            torch.autograd.backward(loss)
            if readout is not None and labels is not None:
                readout.update(hidden.detach(), labels)
                for parameter in self.encoder.last.parameters():
                    parameter.grad = None
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if isinstance(objective, Objective):
                objective.update()

        def kept() -> int:
            sums = 0 if readout is None else _size(readout.gram) + _size(readout.cross)
            return sums + sum(map(_bytes, (self.encoder, optimizer, objective)))

        return step, kept


def step_records(options: StepCost, device: str = "cpu") -> Iterator[Record]:
    """One record for each objective, number of classes and repetition.

    Fields: objective (bare: no objective; cosine, euclidean, orbit_softmax; cross_entropy, partial_fc, arcface,
    proxy_nca; cosine_closed_form, see :func:`_closed_form`), classes (0 for bare), dim, batch, encoder, repetition, step_seconds,
    images_per_second, ratio_to_bare and ratio_to_cosine (of steps in the same repetition, with as many classes),
    ratio_to_fewest (of predefined centers: to the fewest classes in the same repetition), peak_bytes (what stays and the
    most that a step adds: allocator statistics on CUDA, the profiler's account of every tensor on a CPU), predicted and
    reason. Where a layer does not fit ("memory") or would take too long ("time"), one record with ``predicted`` true
    holds the line through its last two measured points instead.
    """
    place = place_of(device)
    if options.precision == "bfloat16":
        # What is computed in float32 all the same may use TF32, so that no layer looks worse than it is.
        torch.set_float32_matmul_precision("high")
    bench = Bench(options, place)
    common = {
        "kind": "step", "encoder": options.encoder.name, "dim": options.dim, "batch": options.batch,
        "system": options.system, "precision": options.precision,
    } | machine(place)  # fmt: skip
    light = {BARE: bench.step(None, 0)}
    for count in sorted({*options.class_counts, *options.center_class_counts}):
        for name, make in OBJECTIVES.items():
            centers = Centers(parse_system(options.system, options.dim, count), count)
            light[name, count] = bench.step(make(centers).to(place), count)
    for record in _predefined(light, bench):
        yield record | common
    if options.readout_hidden is not None:
        for record in _closed_form(options, place):
            yield record | common
    for name in options.rivals:
        for record in _rival(name, light, bench):
            yield record | common


def _predefined(light: dict[tuple[str, int], tuple[Step, Callable[[], int]]], bench: Bench) -> Iterator[Record]:
    """The bare encoder and all predefined centers, all in turns."""
    steps = {key: step for key, (step, _) in light.items()}
    for seed in range(2):
        turn(steps, bench.device, seed)  # warm-up
    memory = {key: kept() + peak_bytes(steps[key], bench.device) for key, (_, kept) in light.items()}
    fewest = min(count for _, count in steps if count)
    for repetition in range(bench.options.repetitions):
        taken = turn(steps, bench.device, repetition)
        for name, count in steps:
            record = _measured(name, count, repetition, taken[name, count], memory[name, count], bench)
            record["ratio_to_bare"] = taken[name, count] / taken[BARE]
            if name != "bare":
                record["ratio_to_cosine"] = taken[name, count] / taken["cosine", count]
                record["ratio_to_fewest"] = taken[name, count] / taken[name, fewest]
            yield record


def _closed_form(options: StepCost, device: torch.device) -> Iterator[Record]:
    """The read-out's last layer in closed form, among the fewest and the most classes of layers.

    The encoder has a hidden layer of ``readout_hidden`` activations here. A step is one that takes its batch into the sums, and
    its share of a solution. Further fields: hidden, solve_seconds (of one solution), ratio_to_trained (to the step
    with the same centers and encoder whose last layer is trained by steps, in the same repetition); ratio_to_bare is to
    the bare encoder with that hidden layer.
    """
    wide = options.encoder.model_copy(update={"hidden": options.readout_hidden})
    bench = Bench(options.model_copy(update={"encoder": wide}), device)
    last = bench.encoder.last
    steps: dict[Any, Step] = {"bare": bench.step(None, 0)[0]}
    memory = {}
    counts = sorted({min(options.class_counts), max(options.class_counts)})
    for count in counts:
        centers = Centers(parse_system(options.system, options.dim, count), count)
        objective = OBJECTIVES["cosine"](centers).to(device)
        sums = ClosedFormReadout(last.in_features, options.dim, objective.targets, half_life=HALF_LIFE, device=device)
        steps["trained", count] = bench.step(objective, count)[0]
        steps["solved", count], kept = bench.step(objective, count, sums)
        steps["solve", count] = partial(sums.solve_into, last, 0.5)
        steps["trained", count]()  # makes the moments
        memory[count] = kept() + max(peak_bytes(steps[part, count], device) for part in ("solved", "solve"))
    turn({key: step for key, step in steps.items() if key[0] != "solve"}, device, 0)  # warm-up, and something to solve
    for repetition in range(options.repetitions):
        taken = turn(steps, device, repetition)
        for count in counts:
            seconds = taken["solved", count] + taken["solve", count] / EVERY
            record = _measured(CLOSED_FORM, count, repetition, seconds, memory[count], bench)
            yield record | {
                "hidden": options.readout_hidden,
                "solve_seconds": taken["solve", count],
                "ratio_to_bare": seconds / taken["bare"],
                "ratio_to_trained": seconds / taken["trained", count],
            }


def _rival(name: str, light: dict[tuple[str, int], tuple[Step, Callable[[], int]]], bench: Bench) -> Iterator[Record]:
    """One layer at each number of classes, in turns with the bare encoder and the cosine objective."""
    options, device = bench.options, bench.device
    times: dict[int, float] = {}
    sizes: dict[int, float] = {}
    for count in sorted(options.class_counts):
        least = least_bytes(name, count, options.dim, options.batch, options.sample_rate)
        expected_bytes = max(float(least), _line(sizes, count, float(least)))
        expected_seconds = _line(times, count, 0.0)
        reason = None
        if expected_bytes > _room(options, device):
            reason = "memory"
        elif expected_seconds > options.slowest_step:
            reason = "time"
        if reason is None:
            try:
                records = list(_rival_turns(name, count, light, bench))
                times[count] = statistics.median(record["step_seconds"] for record in records)
                sizes[count] = records[0]["peak_bytes"]
                yield from records
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                reason = "memory"
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
        if reason is not None:
            yield _prediction(name, count, _line(times, count, 0.0), expected_bytes, reason, bench)


def _rival_turns(
    name: str, count: int, light: dict[tuple[str, int], tuple[Step, Callable[[], int]]], bench: Bench
) -> Iterator[Record]:
    options, device = bench.options, bench.device
    with device:  # a layer of many gigabytes is made where it stays
        objective = RIVALS[name](count, options.dim, options.sample_rate).to(device)
    step, kept = bench.step(objective, count)
    steps = {BARE: light[BARE][0], ("cosine", count): light["cosine", count][0], (name, count): step}
    step()  # makes the moments
    memory = kept() + peak_bytes(step, device)
    affordable = int(options.patience / sum(turn(steps, device, 0).values()))
    for repetition in range(min(options.repetitions, max(_AT_LEAST, affordable))):
        taken = turn(steps, device, repetition)
        record = _measured(name, count, repetition, taken[name, count], memory, bench)
        record["ratio_to_bare"] = taken[name, count] / taken[BARE]
        record["ratio_to_cosine"] = taken[name, count] / taken["cosine", count]
        yield record


def _measured(name: str, count: int, repetition: int, seconds: float, memory: int, bench: Bench) -> Record:
    return {
        "objective": name, "classes": count, "repetition": repetition, "step_seconds": seconds,
        "images_per_second": bench.options.batch / seconds, "peak_bytes": memory, "predicted": False, "reason": None,
    }  # fmt: skip


def _prediction(name: str, count: int, seconds: float, memory: float, reason: str, bench: Bench) -> Record:
    return {
        "objective": name, "classes": count, "repetition": 0, "step_seconds": seconds or None,
        "images_per_second": bench.options.batch / seconds if seconds else None, "peak_bytes": round(memory),
        "predicted": True, "reason": reason,
    }  # fmt: skip


def _line(points: dict[int, float], count: int, without: float) -> float:
    """The line through the two points of most classes, at ``count``; ``without`` where there are fewer than two.

    Noise may turn it downwards; more classes are never expected to cost less.
    """
    if len(points) < 2:
        return without
    (x0, y0), (x1, y1) = sorted(points.items())[-2:]
    return y1 + (count - x1) * max(0.0, y1 - y0) / (x1 - x0)


def _room(options: StepCost, device: torch.device) -> float:
    free = _SHARE * available_bytes(device)
    return free if options.memory_gb is None else min(free, options.memory_gb * 1e9)


def _out_of_memory(error: BaseException) -> bool:
    # A CPU's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _adamw(*modules: nn.Module) -> torch.optim.AdamW:
    # The fused form is the fastest and leanest there is: no layer shall look worse for its optimiser.
    return torch.optim.AdamW(chain.from_iterable(module.parameters() for module in modules), lr=1e-4, fused=True)


def _bytes(owner: nn.Module | torch.optim.Optimizer | None) -> int:
    if owner is None:
        return 0
    if isinstance(owner, nn.Module):
        tensors = [*owner.parameters(), *owner.buffers()]
    else:
        tensors = [value for state in owner.state.values() for value in state.values() if isinstance(value, Tensor)]
    return sum(map(_size, tensors))


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
