"""What counts as the code of a computation: the modules that it uses, and what of them can change a number."""

from pathlib import Path

import pytest

from lsc.source import kept
from lsc.source.closure import Closure, digest_of
from lsc.source.computing import read_source
from lsc.source.kept import source_of
from tests.conftest import ROOT

MODULE = '''
"""Doc."""
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Pair:
    first: int
    second: int


class Options(BaseModel):
    """Doc."""

    rate: float = Field(0.5, ge=0, description="of learning")


def scale(values: "Sequence[float]", by: float = 2.0) -> float:
    """Doc."""
    if by < 0:
        wrong = f"by {by}: negative"
        raise ValueError(wrong + "; give a positive one")
    print("scaled by", by)
    total: float = np.sum(values)
    return total * by  # why
'''


def computes(text: str) -> str | None:
    return read_source(text).computes


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Doc."""', '"""Another doc."""'),
        ("# why", "# because"),
        ("by < 0", "(by <\n        0)"),
        ("scaled by", "scaled with"),
        ("negative", "less than zero"),
        ("give a positive one", "it must be positive"),
        ("of learning", "of training"),
        ("ge=0", "gt=0, le=1"),
        ("float =", "float | int ="),
        ("-> float", "-> np.floating"),
        ('"Sequence[float]"', "list[float]"),
        ("total: float =", "total ="),
        ("import numpy as np\n", "import numpy as np\nfrom torch import Tensor\n"),
        ("from collections.abc", "from typing"),
    ],
)
def test_what_people_read_and_what_checkers_read_computes_nothing(old: str, new: str) -> None:
    assert old in MODULE
    assert computes(MODULE) == computes(MODULE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("total * by", "total + by"),
        ("by: float = 2.0", "by: float = 3.0"),
        ("Field(0.5", "Field(0.6"),
        ("by < 0", "by <= 0"),
        ("ValueError", "TypeError"),
        ("np.sum", "np.prod"),
        ("first: int\n    second: int", "second: int\n    first: int"),
        ('print("scaled by", by)', "by = abs(by)"),
        ("    rate: float", "    pace: float"),
    ],
)
def test_what_can_change_a_number_computes(old: str, new: str) -> None:
    assert old in MODULE
    assert computes(MODULE) != computes(MODULE.replace(old, new))


def test_how_an_objective_is_shown_and_what_a_registry_lists_computes_nothing() -> None:
    first = 'class A:\n    label, color = "A", "#000000"\n    learns = False\n\nALL = Registry("kind", {"a": "m:A"})\n'
    second = 'class A:\n    label, color = "B", "#ffffff"\n    learns = False\n\nALL = Registry("sort", {"b": "m:B"})\n'
    assert computes(first) == computes(second) != computes(second.replace("False", "True"))


def test_text_that_others_may_read_computes() -> None:
    assert computes('NAME = "a"\n') != computes('NAME = "b"\n')
    assert computes('class A:\n    name = "a"\n') != computes('class A:\n    name = "b"\n')


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library of its own: a loop, shapes of which a package exports two, and what belongs to neither."""
    files = {
        "__init__.py": '_LAZY = {"Round": "lib.shapes:Round"}\n\n\ndef __getattr__(name):\n    return _LAZY[name]\n',
        "loop.py": "from lib.base import area\nfrom lib.display import show\n\n\ndef run(shape):\n    show(area(shape))\n",
        "base.py": "from lib import hashing\n\n\ndef area(shape):\n    return hashing.bits(shape)\n",
        "hashing.py": "def bits(x):\n    return x\n",
        "display.py": "from lib.unused import words\n\nCHANGES_NO_RESULT = True\n\n\ndef show(x):\n    return words\n",
        "unused.py": "words = 1\n",
        "shapes/__init__.py": "from lib.shapes.round import Round\nfrom lib.shapes.square import Square\n",
        "shapes/round.py": "from lib.base import area\n\n\nclass Round:\n    area = area\n",
        "shapes/square.py": "class Square:\n    pass\n",
    }
    write(tmp_path / "lib", files)
    return tmp_path / "lib"


def counted(library: Path, *names: str) -> set[str]:
    closure = Closure(library, library.parent)
    for name in names:
        module, _, attribute = name.partition(":")
        closure.start(module, (attribute,) if attribute else ())
    return set(closure.computing)


def test_a_name_is_followed_to_the_module_that_defines_it(library: Path) -> None:
    assert counted(library, "lib.loop") == {"lib.loop", "lib.base", "lib.hashing"}
    assert counted(library, "lib.shapes:Square") == {"lib.shapes.square"}
    assert counted(library, "lib.shapes:Round") == {"lib.shapes.round", "lib.base", "lib.hashing"}


@pytest.mark.parametrize(
    "text",
    [
        "from lib import Round\n\nMine = Round\n",
        "import lib\n\nMine = lib.Round\n",
        "import lib.shapes as shapes\n\nMine = shapes.Round\n",
        "from lib.shapes.round import Round as Base\n\n\nclass Mine(Base):\n    pass\n",
        "def made():\n    from lib.shapes import Round\n\n    return Round()\n",
    ],
)
def test_however_a_file_of_ones_own_imports_it(library: Path, text: str) -> None:
    write(library.parent, {"own.py": text})
    assert counted(library, "own:Mine") == {"own", "lib.shapes.round", "lib.base", "lib.hashing"}


def test_a_file_of_ones_own_counts_with_what_lies_beside_it(library: Path) -> None:
    write(
        library.parent,
        {"own.py": "import math\nfrom beside import part\n\nMine = part, math\n", "beside.py": "part = 1\n"},
    )
    assert counted(library, "own:Mine") == {"own", "beside"}


def test_an_import_alone_that_means_something_else_is_another_computation(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(library.parent)
    digests = set()
    for number, line in enumerate(
        ("from math import sin as f", "from math import cos as f", "from lib.hashing import bits as f")
    ):
        write(library.parent, {f"own{number}/lib/__init__.py": "", f"own{number}/lib/m.py": f"{line}\n\nx = f(1)\n"})
        write(library.parent, {f"own{number}/lib/hashing.py": "def bits(x):\n    return x\n"})
        digests.add(digest_of(["lib.m"], library.parent / f"own{number}" / "lib"))
    assert len(digests) == 3


def test_a_source_that_was_read_before_is_looked_up_and_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = (ROOT / "lsc" / "training" / "loop.py").read_text()
    expected = read_source(text, "lsc.training")
    assert source_of(text, "lsc.training") == expected
    (entry,) = (tmp_path / "lsc" / "sources").iterdir()
    with monkeypatch.context() as context:
        context.setattr("lsc.source.kept.read_source", None)
        assert source_of(text, "lsc.training") == expected
    entry.write_bytes(entry.read_bytes()[:-10])
    assert source_of(text, "lsc.training") == expected
    assert source_of(text + "\nx = 1", "lsc.training") != expected
    monkeypatch.setattr(kept, "_MOST", 4)
    for number in range(8):
        source_of(f"x = {number}", "")
        assert len(list(entry.parent.iterdir())) <= 4
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert source_of(text, "lsc.training") == expected
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert source_of(text, "lsc.training") == expected
    assert (tmp_path / "home" / ".cache" / "lsc" / "sources").is_dir()


def test_every_source_of_the_library_is_the_same_when_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for path in sorted((ROOT / "lsc").rglob("*.py")):
        text = path.read_text()
        assert source_of(text, "lsc") == source_of(text, "lsc") == read_source(text, "lsc"), path
