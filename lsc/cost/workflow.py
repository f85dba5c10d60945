"""What the workflow costs by itself: a run that finds nothing to do, one figure from its records, the start of a job.

Everything is run as a user types it, in the project's folder.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lsc.errors import UserError
from lsc.provenance import provenance
from lsc.study.configuration import Study, read_study
from lsc.training.records import SUMMARY, read_json

Record = dict[str, object]

_DEFAULT = Path("config/demo.yaml")  # the study that the Snakefile takes unless it is given another


def workflow_records(
    study: Path | None, figure: str, whole: bool = False, repetitions: int = 5, cores: str = "all"
) -> Iterator[Record]:
    """Seconds of whole commands; all but the first kind take turns within a repetition.

    Fields: study, what, repetition, seconds, and where it was measured. ``what`` is one of
        whole: the study from nothing, where asked for;
        nothing: a run of the finished study;
        figure: one figure drawn again from the records, with the chapter that it is in;
        start: a training of one step, which is what a job takes besides its training;
        torch: Python importing torch, the part of a start that is not ours;
        jobs: the runs of an experiment as their summaries account for it, in the order of the study, with the fields
            experiment, runs, training_seconds and startup_seconds (of all together; what is left of ``seconds`` goes
            into evaluation, checkpoints and results). Runs that were interrupted are left out.

    Args:
        study: its file, or None for the one that the Snakefile takes.
        figure: name of the figure, without ending.
        whole: run the study from nothing first; its results, checkpoints and caches must not be there yet.

    Raises:
        UserError: the workflow is not here, the study is not finished, or a command fails.
    """
    settings = read_study(study or _DEFAULT)
    results = Path("results") / settings.study
    if shutil.which("snakemake") is None:
        raise UserError("snakemake is not installed: pip install 'lsc[workflow]', or activate the environment of make")
    if not Path("Snakefile").exists():
        raise UserError("no Snakefile here: run this in the project's folder")
    run = ["snakemake", "--cores", cores, *(["--configfile", str(study)] if study else [])]
    place = {"study": settings.study, "cores": cores, **provenance()}

    def record(what: str, repetition: int, seconds: float) -> Record:
        return {"kind": "workflow", "what": what, "repetition": repetition, "seconds": seconds, **place}

    if whole:
        left = [path for path in results.rglob("*") if path.is_file()]
        for old in ([results] if left else []) + ([Path("work")] if Path("work").exists() else []):
            raise UserError(f"{old} exists, and --whole begins from nothing: remove it, or leave --whole out")
        yield record("whole", 0, _seconds(run))
    if "Nothing to be done" not in _output([*run, "--dry-run"]):
        raise UserError(f"{results}: the study is not finished; first {' '.join(run)}")
    summaries = {experiment: _summaries(settings, results, experiment) for experiment in settings.experiments}
    picture = results / "figures" / f"{figure}.png"
    if not picture.exists():
        raise UserError(f"--figure {figure}: there is no {picture}; see that folder for what there is")
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "nothing": run,
            "figure": [*run, "--force", str(picture)],
            "start": _one_step(settings, Path(folder)),
            "torch": [sys.executable, "-c", "import torch"],
        }
        for repetition in range(repetitions):
            for what, command in commands.items():
                yield record(what, repetition, _seconds(command))
            _output(run)  # the page that lists the figure is older than it now
    for experiment, every in summaries.items():
        straight = [summary for summary in every if summary["starts"] == 1]
        total = {
            key: sum(summary[key] for summary in straight) for key in ("process_seconds", "seconds", "startup_seconds")
        }
        yield record("jobs", 0, total["process_seconds"]) | {
            "experiment": experiment,
            "runs": len(straight),
            "training_seconds": total["seconds"],
            "startup_seconds": total["startup_seconds"],
        }


def _summaries(study: Study, results: Path, experiment: str) -> list[dict[str, Any]]:
    files = [results / "runs" / name / SUMMARY for name in study.run_names(experiment)]
    summaries = {path: read_json(path) for path in files if path.exists()}
    for path, summary in summaries.items():
        if "starts" not in summary:
            raise UserError(f"{path}: of an older version, which kept no account of a run's time; train it again")
    return list(summaries.values())


def _one_step(study: Study, folder: Path) -> list[str]:
    runs = [name for experiment in study.experiments for name in study.run_names(experiment)]
    plain = [name for name in runs if study.run_of(name).teacher is None]
    if not plain:
        raise UserError(f"study {study.study} has no run to start")
    settings = folder / "run.yaml"
    settings.write_text(study.run_of(plain[0]).model_dump_json())  # JSON is YAML, too
    out = ("--out", str(folder / "run"), "--restart")
    return [sys.executable, "-m", "lsc", "train", "--config", str(settings), "--set", "training.duration=1 steps", *out]


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    _output(command)
    return time.perf_counter() - began


def _output(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        last = (done.stdout.strip() or "no output").splitlines()[-1]
        raise UserError(f"{' '.join(command)} failed with exit code {done.returncode}: {last}")
    return done.stdout
