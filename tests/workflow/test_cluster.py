"""What would be submitted to a cluster: every call of sbatch, recorded by stand-ins for SLURM's commands."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lsc.errors import UserError
from lsc.study.configuration import Study, read_study, study_from
from lsc.training.options import Resources
from lsc.training.records import RUN_FILES
from lsc.training.run import run_from
from tests.conftest import ROOT, link_tree

# Records its call, makes the files of a training, and says so through squeue; other jobs fail at once.
SBATCH = f"""\
#!{sys.executable} -SE
import json, os, re, sys
from pathlib import Path
jobs = Path(__file__).parent / "jobs"
for number in range(1000, 9999):
    try:
        descriptor = os.open(jobs / str(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        break
    except FileExistsError:
        pass
*words, wrapped = sys.argv[1:]
run = re.search(r"train:experiment=(\\w+),variant=(\\w+),seed=(\\d+)", wrapped)
study = os.environ["STUDY"]
if any("nobody" in word for word in words):
    print("sbatch: error: invalid partition specified: nobody", file=sys.stderr)
    sys.exit(1)
if run:
    folder = Path("results") / study / "runs" / run[1] / run[2] / f"seed_{{run[3]}}"
    folder.mkdir(parents=True)
    for name in {RUN_FILES!r}:
        (folder / name).touch()
with open(descriptor, "w") as file:
    json.dump({{"words": words, "run": run and f"{{run[1]}}/{{run[2]}}/seed_{{run[3]}}", "wrapped": wrapped}}, file)
print(number)
"""
# Runs the job at once, after its user has begun to edit the study for the next run.
SBATCH_AT_ONCE = f"""\
#!{sys.executable} -SE
import json, subprocess, sys
from pathlib import Path
job = Path(__file__).parent / "jobs" / "1000"
*words, wrapped = sys.argv[1:]
Path("edited.yaml").rename("small.yaml")
code = subprocess.run(wrapped.removeprefix("--wrap="), shell=True, stdout=sys.stderr).returncode
job.write_text(json.dumps({{"words": words, "run": "" if code else "low_dim/cpu/seed_0", "wrapped": wrapped}}))
print(1000)
"""
SQUEUE = f"""\
#!{sys.executable} -SE
import json
from pathlib import Path
for path in (Path(__file__).parent / "jobs").iterdir():
    text = path.read_text()
    if text:
        print(f"{{path.name}}|{{'COMPLETED' if json.loads(text)['run'] else 'FAILED'}}")
"""
OTHERS = {
    "srun": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
    "scontrol": "echo 'MinJobAge = 300 sec'",
    "sinfo": "echo 'all*'",
    "sacct": ":",
    "sacctmgr": "echo us",
    "scancel": ":",
}

SMALL: dict[str, Any] = {
    "study": "small",
    "chapters": ["centers", "low_dim"],
    "seeds": [0, 1],
    "run": {"data": {"name": "digits"}, "resources": {"gpu": 1, "cpus_per_task": 96, "mem_mb": 64000, "runtime": 240}},
    "experiments": {
        "low_dim": {
            "variants": {
                "one": {},
                "eight": {"resources": {"gpu": 8, "runtime": 20}},
                "nodes": {"resources": {"gpu": 16, "nodes": 4}},
                "cpu": {"resources": {"gpu": 0, "cpus_per_task": 2}},
                "student": {"teacher": {"run": "low_dim/eight"}, "resources": {"warning": 0}},
            }
        }
    },
}


def submit(
    folder: Path, study: str, *words: str, sbatch: str = SBATCH
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """Run the workflow with the shipped profile; what Snakemake said, and the calls of sbatch."""
    link_tree(folder)
    tools = folder / "tools"
    (tools / "jobs").mkdir(parents=True)
    scripts = {"sbatch": sbatch, "squeue": SQUEUE} | {name: f"#!/bin/sh\n{line}\n" for name, line in OTHERS.items()}
    for name, script in scripts.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    done = subprocess.run(
        [
            *("snakemake", "--cores", "1", "--profile", "slurm", "--retries", "0", "--latency-wait", "5"),
            *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1", *words),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{tools}:{os.environ['PATH']}", "STUDY": study},
    )
    return done, [json.loads(path.read_text()) for path in sorted((tools / "jobs").iterdir()) if path.read_text()]


def assert_asks_for(words: list[str], wanted: Resources) -> None:
    """The words of one call of sbatch are those of a run's resources, on its first attempt."""
    line = f"{' '.join(words)} "
    gpus = re.findall(r"--gpus=(?:\w+:)?(\d+) ", line)
    assert gpus == ([str(wanted.gpu)] if wanted.gpu else []), line
    assert f"--cpus-per-task={wanted.cpus_per_task} " in line
    assert f"--mem {wanted.mem_mb} " in line
    assert f"-t {wanted.runtime} " in line
    assert f"--nodes={wanted.nodes} " in line
    assert "--requeue " in line
    assert (f"--signal=USR1@{wanted.warning_of(1)} " in line) == (wanted.warning > 0)
    several = wanted.nodes > 1
    assert (f"--ntasks={wanted.nodes} --cpus" in line) == (several or wanted.gpu == 0)
    assert (f"--gpus-per-node={wanted.gpu // wanted.nodes} " in line) == several
    assert "--ntasks-per-gpu" not in line


def test_every_job_is_submitted_with_what_its_run_asks_for(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    # The login node has one core to give; the jobs get theirs all the same.
    done, jobs = submit(tmp_path, "small", "--configfile", "small.yaml", "--default-resources", "slurm_account=us")
    study = study_from(SMALL)
    trainings = {job["run"]: job["words"] for job in jobs if job["run"]}
    assert sorted(trainings) == sorted(study.run_names("low_dim")), done.stdout + done.stderr
    for name, words in trainings.items():
        assert_asks_for(words, study.run_of(name).resources)
        assert "-A us" in " ".join(words)
    # A student waits for its teacher.
    order = [job["run"] for job in jobs]
    assert order.index("low_dim/student/seed_1") > order.index("low_dim/eight/seed_1")
    # Chapters are jobs without a GPU.
    chapters = [" ".join(job["words"]) for job in jobs if not job["run"]]
    assert len(chapters) == 2
    assert all("gpu" not in line and "--cpus-per-task=1" in line and "-t 20" in line for line in chapters)


def test_chapters_and_measurements_ask_for_more_time_when_they_are_submitted_again(tmp_path: Path) -> None:
    study = {"study": "small", "chapters": ["centers", "cost"], "cost": {"resources": {"runtime": 50}}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(study))
    _, jobs = submit(tmp_path, "small", "--configfile", "small.yaml", "--retries", "1")
    minutes: dict[str, list[int]] = {}
    for job in jobs:
        words = " ".join(job["words"])
        name = re.search(r"--comment(?: |=)(?:rule_)?(\w+)", words)
        limit = re.search(r"-t (\d+) ", words)
        assert name, words
        assert limit, words
        minutes.setdefault(name[1], []).append(int(limit[1]))
    assert minutes == {"centers": [20, 40], **{f"cost_{name}": [50, 100] for name in ("step", "decode", "hnsw")}}


@pytest.mark.slow
def test_a_job_trains_what_was_planned_though_the_study_was_edited_while_it_waited(tmp_path: Path) -> None:
    run = {
        "data": {"name": "digits", "image_size": 8, "classes": 6},
        "encoder": {"width": 4},
        "training": {"duration": "2 epochs"},
        "resources": {"cpus_per_task": 1},
    }
    study = SMALL | {"seeds": [0], "run": run, "experiments": {"low_dim": {"variants": {"cpu": {}}}}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(study))
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(study | {"run": run | {"training": {"duration": "1 epochs"}}}))
    folder = "results/small/runs/low_dim/cpu/seed_0"
    done, jobs = submit(
        *(tmp_path, "small", "--configfile", "small.yaml", "--", f"{folder}/summary.json"), sbatch=SBATCH_AT_ONCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [job["run"] for job in jobs] == ["low_dim/cpu/seed_0"]
    assert yaml.safe_load((tmp_path / "small.yaml").read_text())["run"]["training"] == {"duration": "1 epochs"}
    assert yaml.safe_load((tmp_path / folder / "config.yaml").read_text())["training"]["duration"] == "2 epochs"


def test_what_a_cluster_refuses_is_said_in_its_words(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL | {"seeds": [0]}))
    target = "results/small/runs/low_dim/one/seed_0/summary.json"
    done, _ = submit(
        tmp_path, "small", "--configfile", "small.yaml", "--set-resources", "train:slurm_partition=nobody", "--", target
    )
    assert done.returncode == 1
    assert "invalid partition specified: nobody" in done.stdout + done.stderr


def test_what_is_missing_is_said_before_anything_runs(tmp_path: Path) -> None:
    """Without SLURM, and without ImageNet's folder: a line, and nothing is sent, fetched or written."""
    link_tree(tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "bash", "env", "uname", "which", "git"):
        (tools / name).symlink_to(shutil.which(name) or "/bin/true")
    path = f"{Path(sys.executable).parent}:{tools}"
    target = "results/paper/runs/high_dim/cosine/seed_0/summary.json"
    for words, said in (
        (("--profile", "slurm"), "sbatch is not to be found: call snakemake where jobs can be submitted to SLURM"),
        (("--configfile", "config/paper.yaml"), "data/imagenet: there is no such folder: link ImageNet's there"),
    ):
        done = subprocess.run(
            ["snakemake", "--cores", "1", *words, "--", target],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": path},
        )
        assert done.returncode == 1
        assert said in done.stdout + done.stderr
        assert not (tmp_path / "results").exists()
        assert not (tmp_path / "data").exists()


PAPER = ROOT / "config" / "paper.yaml"


@pytest.fixture(scope="module")
def paper() -> Study:
    return read_study(PAPER)


def test_every_run_of_the_paper_study_asks_for_a_gpu(paper: Study) -> None:
    for experiment in paper.experiments:
        for name in paper.run_names(experiment):
            wanted = paper.run_of(name).resources
            assert wanted.gpu >= 1, name
            assert wanted.cpus_per_task >= 4, name
            assert wanted.runtime >= 30, name


@pytest.mark.slow
def test_every_run_of_the_paper_study_is_submitted_with_what_it_asks_for(paper: Study, tmp_path: Path) -> None:
    names = [name for experiment in paper.experiments for name in paper.run_names(experiment)]
    targets = [f"results/{paper.study}/runs/{name}/summary.json" for name in names]
    # As if the data had been fetched and listed before.
    for prepared in ("data/cinic10/cinic10.safetensors", "data/imagenet/index.parquet"):
        (tmp_path / prepared).parent.mkdir(parents=True)
        (tmp_path / prepared).touch()
    done, jobs = submit(tmp_path, paper.study, "--", *targets)
    trainings = {job["run"]: job["words"] for job in jobs if job["run"]}
    assert sorted(trainings) == sorted(names), done.stdout + done.stderr
    for name, words in trainings.items():
        assert_asks_for(words, paper.run_of(name).resources)


def test_the_paper_study_is_planned_without_a_cluster(paper: Study, tmp_path: Path) -> None:
    link_tree(tmp_path)
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])
    done = subprocess.run(
        ["snakemake", "-n", "--cores", "all", "--profile", "slurm"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": path},
    )
    assert done.returncode == 0, done.stderr + done.stdout
    runs = sum(len(paper.run_names(experiment)) for experiment in paper.experiments)
    assert f"train {runs}" in " ".join((done.stdout + done.stderr).split())


def test_time_limits_grow_with_the_attempt_up_to_a_limit() -> None:
    wanted = Resources(runtime=600, runtime_limit=1440)
    assert [wanted.runtime_of(attempt) for attempt in (1, 2, 3, 9)] == [600, 1200, 1440, 1440]
    assert Resources(runtime=3000, runtime_limit=1440).runtime_of(2) == 3000
    assert [Resources(runtime=runtime).warning_of(1) for runtime in (1, 30, 50, 600)] == [6, 180, 300, 300]


def test_gpus_that_nodes_cannot_share_are_refused() -> None:
    for gpu in (0, 3):
        with pytest.raises(UserError, match=rf"resources.*{gpu}.*multiple of resources\.nodes"):
            run_from({"data": {"name": "digits"}, "resources": {"gpu": gpu, "nodes": 2}})
