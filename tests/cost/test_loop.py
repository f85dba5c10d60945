"""``lsc cost loop`` measures both sides of the same run."""

import json
from pathlib import Path
from typing import Any

from tests.conftest import ROOT


def test_the_loop_is_measured_beside_its_bare_steps(lsc_command: Any, tmp_path: Path) -> None:
    done = lsc_command(
        *("cost", "loop", "--study", ROOT / "config" / "demo.yaml", "--run", "distillation/student_labels/seed_0"),
        *("--steps", "30", "--repetitions", "2", "--device", "cpu", "--output", "loop.jsonl"),
    )
    assert done.returncode == 0, done.stderr
    assert "images/s in the loop" in done.stdout
    records = [json.loads(line) for line in (tmp_path / "loop.jsonl").read_text().splitlines()]
    assert [record["repetition"] for record in records] == [0, 1]
    for record in records:
        assert record["ratio"] == record["loop_images_per_second"] / record["bare_images_per_second"]
