"""The core does without the packages of the extras, and says what to install where one is needed."""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lsc.centers.assignment import similarity_assignment
from lsc.data.file_index import load_index
from lsc.errors import UserError, needing
from lsc.systems import OrbitSystem
from lsc.training.evaluation import Sample, neighbour_accuracy
from tests.conftest import ROOT

EXTRAS = {"faiss", "matplotlib", "pandas", "pyarrow", "pytorch_metric_learning", "scipy", "seaborn", "sklearn"}
CORE = "lsc.cli, lsc.data.digits, lsc.data.folder, lsc.data.instances, lsc.trained, lsc.training.loop, lsc.cost.step"
SAMPLE = Sample(torch.eye(2), torch.arange(2), torch.arange(2))


def test_training_and_use_import_nothing_of_the_extras() -> None:
    code = f"import sys, {CORE}; print(*sorted({EXTRAS!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("package", "extra", "use"),
    [
        ("pyarrow", "data", lambda: load_index(Path("index.parquet"))),
        ("scipy.optimize", "data", lambda: similarity_assignment(torch.randn(5, 3), OrbitSystem.smallest(5))),
        ("sklearn.neighbors", "data", lambda: neighbour_accuracy(SAMPLE, SAMPLE, k=1)),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, package: str, extra: str, use: Callable[[], object]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs {package.partition('.')[0]}.* pip install 'lsc\[{extra}\]'"):
        use()


def test_a_module_of_ours_that_is_missing_is_no_matter_of_extras() -> None:
    with pytest.raises(ModuleNotFoundError), needing("data", "nothing"):
        import lsc.no_such_module  # type: ignore[import-not-found]  # noqa: F401


def test_the_version_is_that_of_the_project(lsc_command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    done = lsc_command("--version")
    assert (done.returncode, done.stdout) == (0, f"lsc {version}\n")
