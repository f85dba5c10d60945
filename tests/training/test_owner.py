"""One owner of a folder: the second is refused, a dead one's folder is taken over."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lsc.errors import UserError
from lsc.training import owner, records
from lsc.training.loop import train
from lsc.training.owner import NAME, Owner, owning
from tests.conftest import ROOT, tiny_run


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT", 0.05)
    monkeypatch.setattr(owner, "PATIENCE", 0.6)


def left_by(folder: Path, **changes: Any) -> None:
    """The file of an owner as it would be, with ``changes``."""
    with Owner(folder, "--out"):
        content = json.loads((folder / NAME).read_bytes()) | changes
    (folder / NAME).write_text(json.dumps(content))


def test_a_second_owner_is_refused_and_the_next_one_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Owner(folder, "--out"):
        with pytest.raises(UserError, match=rf"--out {folder}: process {os.getpid()} on .* is writing it; wait for it"):
            Owner(folder, "--out")
        (folder / "x").touch()
    with Owner(folder, "--out") as again:
        again.check()
    assert [path.name for path in folder.iterdir()] == ["x"]


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path: Path) -> None:
    with owning(tmp_path / "run", tmp_path / "run" / "checkpoints"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"process": 2**22 + 1},  # no such process
        {"began": "1"},  # its number was given to another one since
        {"host": "elsewhere"},  # no sign of life
        {"place": ["another boot", "x"]},
    ],
)
def test_a_dead_owners_folder_is_taken_over(changes: dict[str, Any], tmp_path: Path) -> None:
    left_by(tmp_path, **changes)
    (tmp_path / ".last.ckpt.abc.part").touch()
    with Owner(tmp_path, "--out") as mine:
        mine.check()
        assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\0" * 512, b'{"host": 3}'])
def test_a_name_that_is_none_is_that_of_nobody_alive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(content)
    with Owner(tmp_path, "--out") as mine:
        mine.check()


def test_an_owner_elsewhere_is_known_by_its_beats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left_by(tmp_path, host="elsewhere")
    ended = threading.Event()

    def beat() -> None:
        content = json.loads((tmp_path / NAME).read_bytes())
        while not ended.wait(0.05):
            content["beats"] += 1
            (tmp_path / NAME).write_bytes(json.dumps(content).encode().ljust(512))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UserError, match="on elsewhere is writing it"):
            Owner(tmp_path, "--out")
    finally:
        ended.set()
        thread.join()
    assert "waiting up to 0.6 s for a sign of process" in capsys.readouterr().err


def test_a_requeued_job_takes_its_own_folder_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    left_by(tmp_path, host="elsewhere")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(owner, "PATIENCE", 100.0)
    with Owner(tmp_path, "--out"):
        pass


def test_who_was_taken_for_dead_stops_writing(tmp_path: Path) -> None:
    first = Owner(tmp_path, "--out")
    content = json.loads((tmp_path / NAME).read_bytes())
    (tmp_path / NAME).write_text(json.dumps(content | {"key": "another", "process": 5}))
    with pytest.raises(UserError, match=r"process 5 on .* has taken it over; this process stops"):
        first.check()
    first.__exit__(None, None, None)
    assert json.loads((tmp_path / NAME).read_bytes())["key"] == "another"
    (tmp_path / NAME).unlink()
    with pytest.raises(UserError, match="was removed"):
        first.check()


def test_of_many_that_come_at_once_one_gets_the_folder(tmp_path: Path) -> None:
    """With threads, for each of which the file's lock is another's: an open file of its own."""
    taken, refused, start = [], [], threading.Barrier(8)

    def take() -> None:
        start.wait()
        try:
            taken.append(Owner(tmp_path, "--out"))
        except UserError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (1, 7)
    taken[0].__exit__(None, None, None)


def test_a_run_is_refused_while_another_trains_it_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    run = tiny_run(training={"duration": "2000 epochs"})
    script = (
        "from pathlib import Path; from lsc.training.loop import train; from tests.conftest import tiny_run; "
        f"train(tiny_run(training={{'duration': '2000 epochs'}}), Path({str(tmp_path)!r}))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL)
    metrics = tmp_path / records.METRICS
    deadline = time.monotonic() + 60
    while not metrics.exists() or metrics.read_text().count("\n") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    try:
        with pytest.raises(UserError, match=f"process {process.pid} on .* is writing it"):
            train(run, tmp_path)
        with pytest.raises(UserError, match=rf"--checkpoints .*process {process.pid}"):
            train(run, tmp_path / "other", checkpoints=tmp_path / "checkpoints")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    short = tiny_run(training={"duration": "2000 epochs", "learning_rate": 0.5})
    with pytest.raises(UserError, match="of another configuration"):
        train(short, tmp_path)
    epochs = [row["epoch"] for row in records.read_rows(metrics)]
    assert epochs == list(range(1, len(epochs) + 1))
