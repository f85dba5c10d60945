"""The code of a run: what it uses, and nothing else of the library."""

import shutil
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from lsc.training.code import code_digest
from tests.conftest import ROOT, tiny_run

_COPIES = count()


def edited(folder: Path, name: str, old: str, new: str) -> Path:
    """The library in a folder of its own, with one piece of a file replaced; a file is read once in a process."""
    package = folder / str(next(_COPIES)) / "lsc"
    shutil.copytree(ROOT / "lsc", package, ignore=shutil.ignore_patterns("__pycache__"))
    text = (package / name).read_text()
    assert old in text
    (package / name).write_text(text.replace(old, new))
    return package


def test_the_code_digest_ignores_comments_and_sees_code(tmp_path: Path) -> None:
    digests = []
    for number, (name, code) in enumerate(
        (
            ("loop.py", 'def f():\n    """Doc."""\n    return 1\n'),
            ("loop.py", "# why\ndef f():\n    return (1)\n"),
            ("plots.py", "x = 2\n"),
            ("loop.py", "def f():\n    return 2\n"),
        )
    ):
        package = tmp_path / str(number) / "lsc"
        (package / "training").mkdir(parents=True)
        (package / "training" / "loop.py").write_text("def f():\n    return 1\n")
        (package / "training" / name).write_text(code)
        digests.append(code_digest(tiny_run(), package))
    assert digests[0] == digests[1] == digests[2] != digests[3]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("training/options.py", "matrices only", "matrices alone"),
        ("training/options.py", "batch_size: int = Field(64, ge=1)", "batch_size: float = Field(64, gt=0)"),
        ("training/building.py", "these {dim}", "but these have {dim}"),
        ("training/session.py", "resumed on", "went on with"),
        ("training/session.py", "learns from {run.teacher.run}", "is taught by {run.teacher.run}"),
        ("training/monitoring.py", "s left", "seconds left"),
        ("settings.py", "did you mean", "perhaps you meant"),
        ("objectives/cosine.py", '"#0072B2"', '"#0000ff"'),
        ("objectives/__init__.py", '"cosine": "lsc', '"angle": "lsc'),
        ("objectives/cross_entropy.py", "return ", "return 0, "),
        ("encoders/resnet.py", "return ", "return 0, "),
        ("data/fractals.py", "return ", "return 0, "),
        ("training/launch.py", "return ", "return 0, "),
        ("cost/step.py", "return ", "return 0, "),
        ("provenance.py", "return ", "return 0, "),
        ("study/claims.py", "return ", "return 0, "),
    ],
)
def test_what_a_run_does_not_use_is_none_of_its_code(tmp_path: Path, name: str, old: str, new: str) -> None:
    assert code_digest(tiny_run(), edited(tmp_path, name, old, new)) == code_digest(tiny_run())


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("objectives/cosine.py", "(1 - cosines).mean()", "(2 - cosines).mean()"),
        ("objectives/base.py", "1e-6", "1e-7"),
        ("centers/permutation.py", "return ", "return 0, "),
        ("systems/orbit.py", "return ", "return 0, "),
        ("encoders/small_cnn.py", "padding=1", "padding=0"),
        ("data/digits.py", "255 / 16", "255 / 17"),
        ("data/memory.py", "return ", "return 0, "),
        ("training/optimization.py", "return ", "return 0, "),
        ("training/loop.py", "run.seed", "run.seed + 1"),
        ("hashing.py", "return ", "return 0, "),
    ],
)
def test_what_a_run_uses_is_its_code(tmp_path: Path, name: str, old: str, new: str) -> None:
    assert code_digest(tiny_run(), edited(tmp_path, name, old, new)) != code_digest(tiny_run())


def test_each_run_has_the_code_of_what_it_names(tmp_path: Path) -> None:
    of_digits = tiny_run()
    settings: dict[str, Any] = {"training": {"neighbours": 3, "transfer": {"name": "digits", "image_size": 8}}}
    fractals = {"name": "fractals", "num_classes": 4, "train_per_class": 2, "test_per_class": 1, "image_size": 8}
    of_fractals, of_instances = (
        tiny_run(data=fractals),
        tiny_run(data={"name": "instances", "of": fractals | {"train_per_class": 4}}),
    )
    transferred = tiny_run(training={"neighbours": 3, "transfer": fractals})
    changed = edited(tmp_path, "data/fractals.py", "return ", "return 0, ")
    for run, same in (
        (of_digits, True),
        (tiny_run(**settings), True),
        (of_fractals, False),
        (of_instances, False),
        (transferred, False),
    ):
        assert (code_digest(run, changed) == code_digest(run)) == same
    layer = edited(tmp_path, "objectives/cross_entropy.py", "return ", "return 0, ")
    assert code_digest(tiny_run(objective={"name": "cross_entropy"}), layer) != code_digest(
        tiny_run(objective={"name": "cross_entropy"})
    )


def test_an_objective_of_ones_own_is_code_of_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for factor in ("2", "2  # of the usual", "3"):
        folder = tmp_path / str(len(digests))
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.delitem(sys.modules, "own_objective", raising=False)
        (folder / "own_objective.py").write_text(
            "from lsc.objectives import Cosine\n\n\nclass Doubled(Cosine):\n"
            f"    def loss(self, embeddings, labels):\n        return super().loss(embeddings, labels) * {factor}\n"
        )
        digests.append(code_digest(tiny_run(objective={"name": "own_objective:Doubled"})))
    assert digests[0] == digests[1] != digests[2]
    assert digests[0] != code_digest(tiny_run())
