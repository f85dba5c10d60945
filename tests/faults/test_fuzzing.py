"""Whatever a folder, a configuration or a checkpoint holds: a result, or one line."""

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lsc.data import open_dataset
from lsc.errors import UserError
from lsc.settings import read_yaml
from lsc.training.checkpoints import LAST, read_checkpoint, write_checkpoint
from lsc.training.loop import train
from lsc.training.run import run_from
from tests.conftest import tiny_run
from tests.data.images import save

quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

# What a folder may have in the place of a name, and as its content.
NAMES = st.sampled_from(
    [
        "train",
        "val",
        "valid",
        "test",
        "a",
        "b",
        "A",
        "é",
        "e\u0301",
        "x.png",
        "y.JPG",
        "z.txt",
        ".h.png",
        "labels.csv",
        "n\nl",
    ]
)
KINDS = st.sampled_from(["folder", "picture", "empty", "text", "pipe", "loop", "up", "broken", "table"])


def make(place: Path, kind: str, root: Path) -> None:
    if place.exists() or place.is_symlink():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "picture":
        save(place.with_suffix(".png")).rename(place)
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind in ("loop", "up", "broken"):
        place.symlink_to({"loop": place, "up": root, "broken": root / "nowhere"}[kind])
    elif kind == "folder":
        place.mkdir()
    else:
        place.write_text({"empty": "", "text": "no image", "table": "path,class\na/x.png,1\nb/x.png,2\n"}[kind])


@quick
@given(tree=st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=4), KINDS), max_size=14))
@example(tree=[(["a", "x.png"], "picture"), (["b", "x.png"], "picture"), (["labels.csv"], "table")])
@example(
    tree=[(["train", "a", "up"], "up"), (["train", "b", "x.png"], "picture"), (["train", "a", "x.png"], "picture")]
)
def test_any_folder_is_opened_or_refused_in_one_line(
    tree: list[tuple[list[str], str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for parts, kind in tree:
        try:
            make(root.joinpath(*parts), kind, root)
        except OSError:  # a file where a folder should be
            continue
    told = ""
    try:
        dataset = open_dataset("folder", root=str(root), image_size=8, workers=0)
        for split in dataset.splits:
            assert dataset.size(split) == len(dataset.labels(split)) > 0
            dataset.images(split, torch.arange(dataset.size(split)))
    except UserError as error:
        told = str(error)
    assert told.isprintable()
    assert all(line.startswith("lsc: warning: ") for line in capsys.readouterr().err.splitlines())


VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["cosine", "digits", "folder", "A", "3 epochs", "1.0e-3"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLAIN = tiny_run().plain()
PLACES = [(key,) for key in PLAIN] + [(k, i) for k, v in PLAIN.items() if isinstance(v, dict) for i in v]


@settings(quick, max_examples=150)
@given(place=st.sampled_from(PLACES), value=VALUES)
def test_any_setting_is_taken_or_refused_in_one_line(place: tuple[str, ...], value: Any, tmp_path: Path) -> None:
    plain = tiny_run().plain()
    block = plain
    for key in place[:-1]:
        block = block[key]
    block[place[-1]] = value
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(plain, allow_unicode=True))
    told, run = "", None
    try:
        run = run_from(read_yaml(path), str(path))
    except UserError as error:
        told = str(error)
    if run is None:
        assert told.isprintable()
        assert place[0] in told
    else:
        assert run_from(run.plain(), "again").digest == run.digest


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(tiny_run(training={"duration": "7 steps"}), folder)
    return folder


@quick
@given(seed=st.integers(0, 2**31), how=st.sampled_from(["flip", "cut", "zero", "double"]))
def test_any_damage_to_a_checkpoint_is_found(seed: int, how: str, trained: Path, tmp_path: Path) -> None:
    content = bytearray((trained / "checkpoints" / LAST).read_bytes())
    chance = random.Random(seed)
    place = chance.randrange(len(content))
    if how == "flip":
        content[place] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del content[place:]
    elif how == "zero":
        content[place : place + 512] = bytes(len(content[place : place + 512]))
    else:
        content[place:place] = content[place : place + 64]
    (tmp_path / LAST).write_bytes(content)
    whole = read_checkpoint(trained / "checkpoints")
    told, found = "", None
    try:
        found = read_checkpoint(tmp_path)
    except UserError as error:
        told = str(error)
    if found is None:
        assert told
        assert told.isprintable()
    else:  # a byte that nothing depends on, as of a date
        assert whole is not None
        assert found["progress"] == whole["progress"]
        assert all(torch.equal(found["task"][key], value) for key, value in whole["task"].items())


@pytest.mark.parametrize("value", [None, "x", {"a": 1}])
@pytest.mark.parametrize("part", ["progress", "num_classes", "task", "learner", "generators", "class_means", "sums"])
def test_a_checkpoint_of_strange_content_is_refused(part: str, value: Any, trained: Path, tmp_path: Path) -> None:
    """Whole, and of our own settings, but not what this version writes."""
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    state = read_checkpoint(tmp_path / "checkpoints")
    assert state is not None
    if value == state[part]:
        return
    write_checkpoint(tmp_path / "checkpoints", state | {part: value})
    with pytest.raises(UserError, match="another version of lsc") as caught:
        train(tiny_run(training={"duration": "7 steps"}), tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", ["step", "rows", "losses", "best", "seconds"])
def test_a_checkpoint_of_a_strange_account_is_refused(key: str, trained: Path, tmp_path: Path) -> None:
    state = read_checkpoint(trained / "checkpoints")
    assert state is not None
    state["progress"][key] = "x"
    write_checkpoint(tmp_path / "checkpoints", state)
    with pytest.raises(UserError, match="another version of lsc"):
        train(tiny_run(training={"duration": "7 steps"}), tmp_path)
