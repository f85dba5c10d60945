"""Several processes for one run, by the command line alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from PIL import Image

from lsc.errors import UserError
from lsc.training.checkpoints import LAST, read_checkpoint
from lsc.training.launch import srun_command
from tests.conftest import ROOT, assert_refused, tiny_run
from tests.data.images import two_classes


def test_each_node_of_a_job_gets_one_command_that_knows_where_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "123456")
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("socket.gethostname", lambda: "first")
    command = srun_command(["train", "--nodes", "2"], nodes=2, per_node=4, threads=32)
    assert command[0] == "srun"
    assert {"--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=32", "--gpus-per-node=4"} < set(command)
    assert command[-5:] == ["train", "--nodes", "2", "--rendezvous", "first:23456"]


def test_nodes_without_a_job_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match="--nodes 2: there is no SLURM job here; give --rendezvous"):
        srun_command([], nodes=2, per_node=1, threads=1)


def test_processes_that_nodes_cannot_share_are_refused(lsc_here: Any, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny_run().plain()))
    words = ["train", "--config", "run.yaml", "--out", "out", "--processes", "3", "--nodes", "2"]
    words += ["--set", "training.batch_size=96"]
    assert_refused(lsc_here(*words), "--processes 3", "multiple of --nodes")


@pytest.mark.slow
def test_two_warned_processes_stop_together_and_ask_for_a_requeue(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny_run(training={"duration": "2000 epochs"}).plain()))
    command = [sys.executable, "-m", "lsc", "train", "--config", "run.yaml", "--out", "out", "--device", "cpu"]
    first = psutil.Popen(
        [*command, "--processes", "2", "--threads", "2"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    while not (tmp_path / "out" / "checkpoints" / LAST).exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    # As SLURM does it: to every process of the job, the one that watches over the workers included.
    for process in [first, *first.children(recursive=True)]:
        process.send_signal(signal.SIGUSR1)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 75, errors
    assert errors.count("stopped by SIGUSR1 at step") == 2
    assert "Traceback" not in errors
    state = read_checkpoint(tmp_path / "out" / "checkpoints")
    assert state is not None
    assert f"at step {state['progress']['step']} of" in errors
    assert state["progress"]["processes"] == 2


@pytest.mark.slow
def test_a_stopped_launcher_waits_for_its_workers_however_long_they_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers stand in for trainings whose checkpoints take long: nobody kills them meanwhile."""
    (tmp_path / "worker.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "def save(number, frame):\n"
        "    time.sleep(3)\n"
        "    pathlib.Path(f'saved_{os.environ[\"RANK\"]}').touch()\n"
        "    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "pathlib.Path(f'ready_{os.environ[\"RANK\"]}').touch()\n"
        "time.sleep(60)\n"
    )
    (tmp_path / "launcher.py").write_text(
        "import sys\n"
        "from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent\n"
        "from lsc.training import launch\n"
        "stop = LocalElasticAgent._shutdown\n"
        "LocalElasticAgent._shutdown = lambda self, *arguments, **options: stop(self, timeout=1)\n"  # instead of half a minute
        "launch.LSC = (sys.executable, 'worker.py')\n"
        "sys.exit(launch.launch([], processes=2, threads=2))\n"
    )
    first = subprocess.Popen(
        [sys.executable, "launcher.py"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    while len(list(tmp_path.glob("ready_*"))) < 2:
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    first.send_signal(signal.SIGTERM)  # to the launcher alone, as Snakemake and a shell do it
    _, errors = first.communicate(timeout=60)
    assert (first.returncode, sorted(path.name for path in tmp_path.glob("saved_*"))) == (75, ["saved_0", "saved_1"]), (
        errors
    )


def in_two_processes(folder: Path, *before: str) -> subprocess.CompletedProcess[str]:
    """Train ``run.yaml`` by the installed command, with words ``before`` it, in two processes."""
    words = ["train", "--config", "run.yaml", "--out", "out", "--processes", "2", "--device", "cpu", "--threads", "2"]
    return subprocess.run(
        [*before, str(Path(sys.executable).parent / "lsc"), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.slow
def test_processes_that_find_different_checkpoints_do_not_begin(tmp_path: Path) -> None:
    """As where each node has a disk of its own: here one of the processes is shown an empty folder."""
    run = tiny_run(training={"duration": "2 epochs"})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run.plain()))
    assert in_two_processes(tmp_path).returncode == 0
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    import lsc.training.checkpoints as checkpoints\n"
        "    checkpoints.read_checkpoint = lambda folder: None\n"
    )
    done = in_two_processes(tmp_path, "env", f"PYTHONPATH={tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2, done.stderr
    assert "out/checkpoints: the processes found different checkpoints here (none and one of step" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_two_processes_trained_outlives_an_image_that_one_cannot_load(tmp_path: Path) -> None:
    """In an evaluation, then in a step, of the second process alone: the one that writes checkpoints hears of it."""
    data = {"name": "folder", "root": str(two_classes(tmp_path / "images", 8)), "image_size": 8, "workers": 1}
    run = tiny_run(training={"duration": "4 epochs", "batch_size": 4, "evaluate_every": 2}).plain() | {"data": data}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    for step, where in ((8, "request.split == 'test'"), (12, "request.epoch == 3")):
        (tmp_path / "sitecustomize.py").write_text(
            "import os\n"
            "if os.environ.get('RANK') == '1':\n"
            "    from lsc.data.image_folder import ImageFolder\n"
            "    from lsc.errors import UserError\n"
            "    views = ImageFolder.views\n"
            "    def breaking(self, request):\n"
            f"        if {where}:\n"
            "            raise UserError('x.png does not decode: replace it')\n"
            "        return views(self, request)\n"
            "    ImageFolder.views = breaking\n"
        )
        broken = in_two_processes(tmp_path, "env", f"PYTHONPATH={tmp_path}{os.pathsep}{ROOT}")
        assert broken.returncode == 2, broken.stderr
        said = f"lsc: error: x.png does not decode: replace it (a checkpoint of step {step} was written)"
        assert [line for line in broken.stderr.splitlines() if "x.png" in line] == [said]
        assert "Traceback" not in broken.stderr
        state = read_checkpoint(tmp_path / "out" / "checkpoints")
        assert state is not None
        assert state["progress"]["step"] == step
    assert in_two_processes(tmp_path).returncode == 0
    (tmp_path / "out").rename(tmp_path / "resumed")
    assert in_two_processes(tmp_path).returncode == 0
    weights = [(tmp_path / name / "encoder.safetensors").read_bytes() for name in ("resumed", "out")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_two_processes_need_no_name_of_their_machine_and_nothing_of_the_folder(tmp_path: Path) -> None:
    """A name that does not resolve, as in many containers; modules in the folder that are named like others."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tiny_run(training={"duration": "2 steps"}).plain()))
    (tmp_path / "queue.py").write_text("raise SystemExit(3)")
    (tmp_path / "lsc").mkdir()
    (tmp_path / "lsc" / "__init__.py").write_text("raise SystemExit(3)")
    nameless: tuple[str, ...] = ()
    if os.geteuid() == 0 and subprocess.run(["unshare", "--uts", "true"], check=False).returncode == 0:
        nameless = ("unshare", "--uts", "sh", "-c", 'hostname no-such-name && exec "$@"', "sh")
    done = in_two_processes(tmp_path, *nameless)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test top1") == 1


@pytest.mark.slow
def test_what_one_of_two_processes_says_at_its_end_is_not_buried(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "images" / name / f"{number}.png")
    (tmp_path / "images" / "train" / "a" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    data = {"name": "folder", "root": "images", "image_size": 8, "workers": 0}
    run = tiny_run(training={"duration": "3 epochs", "batch_size": 4}).plain() | {"data": data}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    done = in_two_processes(tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("lsc: error: images/train/a/3.png does not decode") == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 15
