"""What docstrings refer to exists, so that the pages made from them have no dead links."""

import importlib
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

REFERENCE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?(lsc[\w.]*)`")
REFERENCES = sorted(
    {(path, target) for path in (ROOT / "lsc").rglob("*.py") for target in REFERENCE.findall(path.read_text())}
)


def exists(target: str) -> bool:
    """Whether a dotted name leads to a module, or to something in one."""
    parts = target.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


def test_a_name_that_leads_nowhere_does_not_exist() -> None:
    assert exists("lsc.systems.partition")
    assert exists("lsc.Centers.vectors")
    assert not exists("lsc.Centers.vector")
    assert not exists("lsc.config")
    assert len(REFERENCES) > 20


@pytest.mark.parametrize(
    ("path", "target"),
    [pytest.param(path, target, id=f"{path.relative_to(ROOT)}-{target}") for path, target in REFERENCES],
)
def test_a_reference_leads_somewhere(path: Path, target: str) -> None:
    assert exists(target), f"{path}: {target}"
