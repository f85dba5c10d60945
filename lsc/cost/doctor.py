"""What this machine is, and what each study would take on it: from measurements of a minute, as estimates."""

import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch

from lsc.cost import timing
from lsc.data.base import Dataset
from lsc.data.options import DatasetOptions
from lsc.errors import UserError
from lsc.provenance import processor, usable_cores
from lsc.study.configuration import Study
from lsc.training.building import build_task
from lsc.training.devices import available_bytes
from lsc.training.monitoring import peak_flops
from lsc.training.optimization import make_optimizer
from lsc.training.run import Run

# Training images and classes of the sets that have to be fetched, as published.
PUBLISHED = {"imagenet": (1_281_167, 1000), "cinic10": (90_000, 10)}
# Images of a measured step at most: many more tell little more and would not fit into a minute.
_IMAGES = {"cpu": 64, "cuda": 1024}
# A measured step has so many times the images of the one before, until there are enough or the time is up.
_GROWTH = 4
# Images that are drawn together where drawing is measured: as many as a training draws.
_DRAWN = {"cpu": 128, "cuda": 4096}


def machine_lines(folder: Path, device: torch.device) -> Iterator[tuple[str, str]]:
    """(what, how it is here) of everything that a training depends on; writes and removes files in ``folder``."""
    yield "python, torch", f"{sys.version.split()[0]}, {torch.__version__}"
    yield "processor", processor()
    load, cores = os.getloadavg()[0], usable_cores()
    busy = "; what follows is slower than at rest" if load > 0.5 * cores else ""
    yield "load", f"{load:.1f} processes at work on {cores} cores{busy}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield "memory", f"{memory / 2**30:.1f} GiB, {available_bytes(torch.device('cpu')) / 2**30:.1f} free"
    yield from _gpu_lines()
    disk = shutil.disk_usage(folder)
    yield "disk here", f"{disk.free / 2**30:.1f} GiB free, writes {write_rate(folder) / 2**20:.0f} MiB/s"
    yield "JPEG files", f"{decoding_rate():.0f} images/s on a core, read, cropped and resized to 224x224"
    yield "SLURM", slurm()
    missing = {extra: names for extra, names in extras().items() if names}
    yield (
        "extras",
        "all installed"
        if not missing
        else "; ".join(f"{extra} lacks {', '.join(names)}" for extra, names in missing.items()),
    )
    yield "estimates for", f"{device.type}, {torch.get_num_threads()} threads"


def _gpu_lines() -> Iterator[tuple[str, str]]:
    if not torch.cuda.is_available():
        yield "GPU", "none to be seen"
        return
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        peak = peak_flops("bfloat16", card.name)
        rate = f"{peak / 1e12:.0f} TFLOP/s in bfloat16 by its data sheet" if peak else "of unknown peak rate"
        yield f"GPU {index}", f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {rate}, driver {_driver()}"


def _driver() -> str:
    if (program := shutil.which("nvidia-smi")) is None:
        return "unknown"
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return (done.stdout.split() or ["unknown"])[0]


def slurm() -> str:
    """Whether jobs can be submitted from here, or this is one."""
    job = os.environ.get("SLURM_JOB_ID")
    if job:
        return f"this is job {job}"
    return "jobs can be submitted" if shutil.which("sbatch") else "not here"


def extras() -> dict[str, list[str]]:
    """Extra of the package -> its requirements that are not installed."""
    try:
        lines = requires("lsc") or []
    except PackageNotFoundError:
        return {}
    missing: dict[str, list[str]] = {}
    for line in lines:
        package, _, condition = line.partition(";")
        extra = condition.partition("extra ==")[2].strip(" '\"")
        if extra and extra != "dev":
            name = package.strip().split("[")[0].split(">")[0].split("=")[0].split("<")[0].strip()
            missing.setdefault(extra, [])
            try:
                version(name)
            except PackageNotFoundError:
                missing[extra].append(name)
    return missing


def write_rate(folder: Path, size: int = 2**25) -> float:
    """Bytes per second that reach the disk of a folder.

    Raises:
        UserError: nothing can be written there.
    """
    block = os.urandom(size)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            began = time.perf_counter()
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            return size / (time.perf_counter() - began)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; run lsc doctor in a folder that can be written to") from None


def decoding_rate(seconds: float = 1.0) -> float:
    """Training images per second that one core makes of JPEG files of about ImageNet's size."""
    from lsc.cost.data import measure, prepared_imagenet

    with tempfile.TemporaryDirectory() as folder:
        options = prepared_imagenet(Path(folder), per_class=8)
        return float(measure(options, seconds, torch.device("cpu"))["images_per_second"])


@dataclass(frozen=True)
class Estimate:
    """What the training of one experiment would take, without evaluations; seconds None: not measured in the time given."""

    experiment: str
    runs: int
    images: float
    seconds: float | None
    reason: str = ""


def estimates(study: Study, device: torch.device, budget: float) -> Iterator[Estimate]:
    """One for each experiment of a study, from a few steps of its runs' own encoders, objectives and batches.

    Runs that differ in less than encoder and image are measured once, but for layers with a row for each class. A run on
    several GPUs is taken as if it had one, and steps are not compiled, which is faster where a run asks for it.
    """
    rates: dict[Any, float | str] = {}
    kinds = {_kind(study.run_of(name)) for block in study.experiments for name in study.run_names(block)}
    each, began = budget / max(1, len(kinds)), time.monotonic()
    for experiment in study.experiments:
        names = study.run_names(experiment)
        images, seconds, reason = 0.0, 0.0, ""
        for run in map(study.run_of, names):
            kind = _kind(run)
            if kind not in rates:
                late = time.monotonic() - began > 1.5 * budget
                rates[kind] = "the time was up; give more --seconds" if late else _rate(run, device, each)
            rate, wanted = rates[kind], images_of(run)
            images += wanted
            if isinstance(rate, str):
                reason = reason or rate
            else:
                seconds += wanted / rate
        yield Estimate(experiment, len(names), images, None if reason else seconds, reason)


def _kind(run: Run) -> tuple[Any, ...]:
    rows = run.objective_class.role in ("baseline", "rival")
    return (
        run.encoder.model_dump_json(), _shape(run.data), run.training.precision, run.data.name,
        (run.objective.name, _classes(run.data)[1]) if rows else "centers",
    )  # fmt: skip


def images_of(run: Run) -> float:
    """Training images that a run looks at, over all its epochs and groups of classes."""
    size, _ = _classes(run.data)
    groups = run.lifelong.groups if run.lifelong is not None and not run.lifelong.sums else 1
    # A group has its share of the images, unless the duration is not in epochs.
    per_epoch = max(1, size // groups // run.training.batch_size)
    steps = max(1, run.training.duration.steps(per_epoch, run.training.batch_size))
    return float(groups * steps * run.training.batch_size)


def _classes(options: DatasetOptions) -> tuple[int, int]:
    """Images of a training epoch and classes, from the options alone where files would be needed."""
    if options.name in PUBLISHED:
        images, classes = PUBLISHED[options.name]
        every = getattr(options, "valid_every", 0)
        return images - (images // every if every else 0), classes
    if options.name == "instances":
        images = options.limit or _classes(options.of)[0]  # type: ignore[attr-defined]
        return images, images
    dataset = options.open()
    return dataset.epoch_size or dataset.size("train"), dataset.num_classes


def _shape(options: DatasetOptions) -> tuple[int, int, int]:
    if options.name == "instances":
        return _shape(options.of)  # type: ignore[attr-defined]
    if options.name in PUBLISHED:
        side = getattr(options, "image_size", 32)
        return 3, side, side
    return options.open().image_shape


def _rate(run: Run, device: torch.device, budget: float) -> float | str:
    """Training images per second of a run; or why they are not known."""
    try:
        _, classes = _classes(run.data)
        shape = _shape(run.data)
        centers = run.centers.model_copy(update={"assignment": "shuffled"})
        if centers.system == "teacher":
            centers = centers.model_copy(update={"system": "A"})
        plain = run.model_copy(update={"centers": centers, "teacher": None})
        limit, left = min(run.training.batch_size, _IMAGES[device.type]), budget
        rows, step = 0, math.inf
        # A GPU takes as long for a few images as for many, so the few tell nothing of these: more and more, while there is time.
        for more in _growing(limit):
            began = time.monotonic()
            try:
                step, rows = step_seconds(plain, shape, classes, more, device, 0), more
            except torch.OutOfMemoryError:
                if not rows:
                    raise
                break
            took = time.monotonic() - began
            left -= took
            if left < 2 * _GROWTH * took:  # what is built takes its time as well, whatever the number of images
                break
        if left > 0:
            step = min(step, step_seconds(plain, shape, classes, rows, device, left / 2))
        return 1 / (step / rows + _drawing_seconds(run.data, device))
    except UserError as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:  # of torch, where memory does not suffice
        return f"{run.experiment}/{run.variant} was not measured: {str(error).splitlines()[0][:100]}"


def _growing(limit: int) -> Iterator[int]:
    """Numbers of images, from few to ``limit``."""
    rows = min(limit, 4)
    while rows < limit:
        yield rows
        rows *= _GROWTH
    yield limit


def step_seconds(
    run: Run, shape: tuple[int, int, int], classes: int, rows: int, device: torch.device, budget: float
) -> float:
    """Least seconds of a training step of so many images, noise, after one that warms up."""
    task = build_task(run, shape, classes).to(device)
    optimizer = make_optimizer(task, run.training)
    images, labels = torch.randn(rows, *shape, device=device), torch.arange(rows, device=device) % classes
    low = run.training.precision == "bfloat16" and device.type == "cuda"
    least, steps, began = math.inf, 0, time.perf_counter()
    while steps < 2 or time.perf_counter() - began < budget:
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=low):
            loss = task(images, labels)
        torch.autograd.backward(loss)
        optimizer.step()
        task.objective.update()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        steps += 1
        if steps > 1:
            least = min(least, time.perf_counter() - start)
    return least


def _drawing_seconds(options: DatasetOptions, device: torch.device) -> float:
    """Seconds that an image takes to be drawn for each batch; what is held in memory, or loaded beside, takes none."""
    if options.name != "fractals":
        return 0.0
    dataset: Dataset = options.open()
    if not getattr(options, "endless", False) and dataset._fits_in_memory("train"):  # type: ignore[attr-defined]
        return 0.0
    rows = min(_DRAWN[device.type], dataset.size("train"))

    def draw() -> None:
        next(dataset.train_batches(rows, seed=0, epoch=0, device=device, subset=torch.arange(rows)))

    if device.type == "cuda":
        draw()  # it has to be told how, the first time
    return timing.seconds(draw, device, least=0) / rows
