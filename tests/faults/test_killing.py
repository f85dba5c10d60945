"""A training that is killed again and again loses nothing; by hand with many kills: python -m tests.faults.killing."""

from pathlib import Path

from tests.faults.killing import kill_often


def test_kills_lose_no_row_and_change_no_weight(tmp_path: Path) -> None:
    killed, lost = kill_often(tmp_path, 4, duration="25 epochs", longest=0.6)
    assert lost == 0
    assert killed >= 1
