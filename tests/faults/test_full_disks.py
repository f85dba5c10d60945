"""Full disks: one line, what was there stays, and nothing is left half-written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lsc.cli import main
from lsc.errors import UserError
from lsc.files import append_line, write_bytes
from lsc.training import records
from lsc.training.loop import train
from tests.conftest import ROOT, tiny_run
from tests.faults.disks import small_disk

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")

FULL = r"the disk is full while writing|File too large|the file could not be written|No space left on device"


def test_a_line_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 64) as disk:
        path = disk / "metrics.jsonl"
        lines = 0
        while lines < 100:
            try:
                append_line(path, "x" * 999)
            except UserError:
                break
            lines += 1
        with pytest.raises(UserError, match=FULL):
            append_line(path, "x" * 99_999)
        assert path.read_text() == ("x" * 999 + "\n") * lines
        assert 20 < lines < 100


@pytest.mark.parametrize("kilobytes", [4, 8, 12, 16, 24, 40, 64, 96])
def test_a_training_on_a_full_disk_loses_nothing(kilobytes: int, tmp_path: Path) -> None:
    """Wherever the space runs out: in the settings, a row, a checkpoint, the embeddings or the weights."""
    run = tiny_run(training={"duration": "3 epochs"})
    with small_disk(tmp_path / "small", kilobytes) as disk:
        told = ""
        try:
            train(run, disk / "run", checkpoints=tmp_path / "checkpoints")
        except UserError as error:
            told = str(error)
        assert "\n" not in told
        files = {path.name: path for path in (disk / "run").glob("*")} if (disk / "run").exists() else {}
        assert not [name for name in files if name.endswith(".part")]
        assert (records.SUMMARY in files) != bool(told)
        for name, path in files.items():
            assert path.stat().st_size or name == records.METRICS, f"{name} is empty"
        rows = records.read_rows(disk / "run" / records.METRICS)
        assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    # With room, it goes on from where it stood.
    again = train(run, tmp_path / "roomy", checkpoints=tmp_path / "checkpoints")
    assert again["steps"] == 18
    assert [row["epoch"] for row in records.read_rows(tmp_path / "roomy" / records.METRICS)] == [1, 2, 3]


@pytest.mark.parametrize(
    "words",
    [
        ("tree", "imagenet", "--root", "{}/tree", "--classes", "9"),
        ("tree", "cinic10", "--root", "{}/tree", "--per-class", "9"),
        ("render", "digits", "--out", "{}/sheet.png", "--images", "90", "--set", "image_size=32"),
    ],
)
def test_pictures_are_whole_or_not_there(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "small", 24 if words[0] == "render" else 100) as disk:
        if not os.path.ismount(disk):
            pytest.skip("this machine lets nobody mount")
        monkeypatch.setattr(sys, "argv", ["lsc", "data", *(word.format(disk) for word in words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        told = capsys.readouterr().err
        assert stopped.value.code == 2
        assert told.startswith("lsc: error: the disk is full while writing")
        assert told.count("\n") == 1
        assert all(path.stat().st_size and not path.name.endswith(".part") for path in disk.rglob("*.*"))


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 64) as disk:
        write_bytes(disk / "x", b"old")
        with pytest.raises(UserError, match=FULL):
            write_bytes(disk / "x", b"n" * 100_000)
        assert (disk / "x").read_bytes() == b"old"
        assert [path.name for path in disk.iterdir()] == ["x"]


# Commands under a shell that fills or closes a standard stream: exit code, what must stand on stderr.
STREAMS = {
    "full output": ("--version > /dev/full", 2, "lsc: error: standard output: the disk is full"),
    "full output, met before the end": ("data list > /dev/full", 2, "lsc: error: standard output: the disk is full"),
    "full error": ("data fetch mnist 2> /dev/full", 2, ""),
    "closed output": ("--version >&-", 0, ""),
    "closed error, a mistake": ("data fetch mnist 2>&-", 2, ""),
    "all closed": ("data render digits --out a.png --classes 3 --images 3 <&- >&- 2>&-", 0, ""),
}


def test_standard_streams_that_are_full_or_closed(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for what, (words, code, told) in STREAMS.items():
        command = ["bash", "-c", f"exec 3>&1; {sys.executable} -m lsc {words}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
        assert done.returncode == code, (what, done.stderr)
        assert done.stderr.startswith(told) if told else not done.stderr, (what, done.stderr)
        assert done.stderr.count("\n") == (1 if told else 0)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png"}


def test_an_encoding_that_lacks_a_letter_and_a_width_of_no_columns() -> None:
    code = "from lsc.cli.streams import open_standard_streams; open_standard_streams(); print('caf\u00e9')"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "ascii",
        "COLUMNS": "0",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert (done.stdout, done.stderr) == ("caf\\xe9\n", "")
    done = subprocess.run(
        [sys.executable, "-m", "lsc", "--help"], capture_output=True, text=True, env=environment, timeout=120
    )
    assert "train" in done.stdout
