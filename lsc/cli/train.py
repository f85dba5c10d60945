"""``lsc train``: one run of a study, or one settings file."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from lsc.cli.settings import changed
from lsc.errors import UserError
from lsc.files import refuse_file
from lsc.provenance import usable_cores
from lsc.study.configuration import read_study
from lsc.training.launch import is_first, is_worker, launch
from lsc.training.run import Run, read_run, run_from


def train(
    out: Annotated[Path, typer.Option(help="Folder of the run, made if need be.")],
    study: Annotated[Path | None, typer.Option(help="Study file, e.g. config/demo.yaml.")] = None,
    run: Annotated[str | None, typer.Option(help="Run of the study: experiment/variant/seed_n.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings of one run instead, e.g. a run's config.yaml.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a setting, e.g. training.learning_rate=0.01; repeatable. Keys: config/README.md."
        ),
    ] = None,
    teacher: Annotated[Path | None, typer.Option(help="Folder of the teacher's run, where the run has one.")] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Folder of a finished run to begin with: its encoder, and the centers of its classes; its settings, unless "
            "others are given.",
        ),
    ] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Folder of the checkpoints; OUT/checkpoints by default.")
    ] = None,
    by_code: Annotated[
        bool, typer.Option("--by-code", help="Keep the checkpoints of each state of the code in a folder of their own.")
    ] = False,
    digest: Annotated[
        str | None, typer.Option(help="Digest of the settings that are meant; refuse to train others.")
    ] = None,
    restart: Annotated[bool, typer.Option(help="Discard checkpoints instead of resuming.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            help="CPU threads on each node, for all its processes; by default SLURM's, else OMP_NUM_THREADS, else all cores."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=0, help="One per GPU, over all nodes; 0 and 1: this process alone.")
    ] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes that share the processes, e.g. those of a SLURM job.")] = 1,
    rendezvous: Annotated[
        str | None, typer.Option(help="HOST:PORT of the first node, if each node's command is started by hand.")
    ] = None,
    tensorboard: Annotated[bool, typer.Option(help="Also write event files to OUT/tensorboard.")] = False,
) -> None:
    """Train an encoder. A run that was interrupted goes on where it stopped."""
    settings = _settings(study, run, config, change or [], start)
    if digest is not None and digest != settings.digest:
        raise UserError(
            f"--digest {digest}: run {settings.name} of {study or config} has other settings ({settings.digest}) than those "
            "that were planned; start the workflow again"
        )
    refuse_file(out)
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device!r}: use auto, cpu or cuda")
    # The launcher has shared the node's threads out already.
    threads = int(os.environ.get("OMP_NUM_THREADS", 1)) if is_worker() else job_threads(threads)
    settings.check_processes(max(processes, 1))
    if max(processes, nodes) > 1 and not is_worker():
        sys.exit(launch(sys.argv[1:], processes=processes, nodes=nodes, threads=threads, rendezvous=rendezvous))
    with without_collecting():
        import torch

        from lsc.training.code import code_digest
        from lsc.training.loop import train as train_run
        from lsc.training.signals import REQUEUE_EXIT_CODE, Interrupted

    torch.set_num_threads(threads)
    code = code_digest(settings)  # now: a file that is edited while the run trains is not what it trains by
    if by_code:
        checkpoints = (checkpoints or out / "checkpoints") / "-".join([code, *_code_of(teacher)])
    try:
        summary = train_run(
            settings,
            out,
            checkpoints=checkpoints,
            teacher=teacher,
            start=start,
            restart=restart,
            accelerator=device,
            tensorboard=tensorboard,
        )
    except Interrupted as interruption:
        print(f"lsc: {interruption}", file=sys.stderr)
        sys.exit(REQUEUE_EXIT_CODE)
    if is_first():
        print(f"{settings.name}: {summary['final_on']} top1 {summary['final_top1']:.4f}, {out}")


@contextmanager
def without_collecting() -> Iterator[None]:
    """Imports without garbage collection: what they make stays for good, and to look through it takes a fifth of the time.

    Later collections do not look through it either.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # or libraries would report at the end that something of theirs is left
        gc.enable()


def _settings(
    study: Path | None, run: str | None, config: Path | None, changes: list[str], start: Path | None = None
) -> Run:
    begun = None if start is None else _begun(start)
    if config is not None:
        if study is not None or run is not None:
            raise UserError("--config: names a run by itself; leave out --study and --run")
        plain = read_run(config).plain()
    elif begun is not None and study is None and run is None:
        plain = begun
    elif study is None or run is None:
        raise UserError("give --study FILE and --run experiment/variant/seed_n, or --config FILE, or --from FOLDER")
    else:
        plain = read_study(study).run_of(run).plain()
    if begun is not None:
        plain |= {"start": begun["start"]}
    return run_from(changed(plain, changes), "--set" if changes else str(config or study or start))


def _begun(folder: Path) -> dict[str, Any]:
    """The settings of a run that begins with the weights in ``folder``."""
    from lsc.training.start import settings_from

    return settings_from(folder).plain()


def _code_of(teacher: Path | None) -> list[str]:
    """The digest of the code that made a teacher: its student learns otherwise from another."""
    from lsc.training.records import SUMMARY, read_json

    if teacher is None:
        return []
    try:
        return [read_json(teacher / SUMMARY)["code"]]
    except (OSError, ValueError, KeyError):  # of an older version, or no run: training says what is wrong with it
        return ["unknown"]


def job_threads(wanted: int | None = None) -> int:
    """CPU threads for this node: those wanted, SLURM's, those set for OpenMP, or all cores; no more than there are."""
    if wanted is not None:
        return max(1, min(wanted, usable_cores()))
    for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdigit():
            return max(1, int(os.environ[name]))
    return usable_cores()
