"""The plan of a study: looked up it is what it is when made, and whatever it follows from makes another one."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lsc.errors import UserError
from lsc.settings import merge, read_yaml
from lsc.study import plan as plans
from lsc.study.configuration import study_from
from lsc.study.plan import Plan, plan_from, plan_of, planned
from tests.conftest import ROOT

STUDY: dict[str, Any] = {
    "study": "small",
    "chapters": ["low_dim"],
    "seeds": [0, 1],
    "run": {"data": {"name": "digits"}, "resources": {"mem_mb": 1000}},
    "experiments": {
        "low_dim": {"variants": {"teacher": {}, "student": {"teacher": {"run": "low_dim/teacher"}}}},
        "high_dim": {"variants": {"files": {"data": {"name": "cinic10", "root": "images"}}}},
    },
}
# Says what a run's digest is, and whether it took torch.
TOLD = (
    "import sys; from pathlib import Path; from lsc.settings import read_yaml; from lsc.study.plan import plan_from; "
    "plan = plan_from(read_yaml(Path(sys.argv[1]))); "
    "print(plan.runs['low_dim/cosine/seed_0'].digest, 'torch' in sys.modules)"
)
DEMO = ROOT / "config" / "demo.yaml"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of kept plans, empty, for a library that has not changed since it was imported."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(plans, "_IMPORTED", plans._library())
    return tmp_path / "cache" / "lsc" / "plans"


def looked_up(settings: dict[str, Any]) -> Plan | None:
    """The plan, if it was kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "plan_of", lambda study: None)
        patch.setattr(plans, "_IMPORTED", None)
        return plan_from(settings)


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "config").glob("*.yaml")))
def test_what_is_looked_up_is_what_was_made(file: str, cache: Path) -> None:
    settings = read_yaml(ROOT / "config" / file)
    made = plan_from(settings)
    found = looked_up(settings)
    assert found == made == plan_of(study_from(settings))
    assert repr(found) == repr(made)  # 1 and 1.0 are equal, and not the same to Snakemake


def test_a_measurement_is_made_again_where_its_encoder_changed(cache: Path) -> None:
    assert plan_from(STUDY).step_code == ["lsc.cost.step", "lsc.encoders.small_cnn:SmallCNN"]


def test_the_workflow_is_told_what_the_study_says(cache: Path) -> None:
    study, plan = study_from(STUDY), plan_from(STUDY)
    assert plan.run_names("low_dim") == study.run_names("low_dim")
    assert plan.run_names("nothing") == study.run_names("nothing") == []
    student, files = plan.run_of("low_dim/student/seed_1"), plan.run_of("high_dim/files/seed_0")
    assert (student.teacher, student.files, student.resources.mem_mb) == ("low_dim/teacher/seed_1", [], 1000)
    assert (files.teacher, files.files) == (None, ["images/cinic10.safetensors"])
    assert student.digest == study.run_of("low_dim/student/seed_1").digest


def test_a_run_that_is_not_in_the_plan_is_that_of_the_study(cache: Path) -> None:
    study, plan = study_from(STUDY), plan_from(STUDY)
    name = "low_dim/student/seed_7"
    assert plan.run_of(name) == planned(study.run_of(name))
    for wrong in ("low_dim/pupil/seed_0", "dim/student/seed_0", "low_dim"):
        with pytest.raises(UserError) as ours:
            plan.run_of(wrong)
        with pytest.raises(UserError) as theirs:
            study.run_of(wrong)
        assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [0]},
        {"seeds": [1, 0]},
        {"records": "reference"},
        {"run": {"training": {"learning_rate": 0.1}}},
        {"run": {"resources": {"mem_mb": 1001}}},
        {"cost": {"step": {"batch": 63}}},
        {"experiments": {"low_dim": {"variants": {"another": {}}}}},
    ],
)
def test_an_edited_study_has_another_plan(change: dict[str, Any], cache: Path) -> None:
    before, edited = plan_from(STUDY), merge(STUDY, change)
    assert looked_up(STUDY) == before
    assert looked_up(edited) is None
    assert plan_from(edited) == plan_of(study_from(edited)) != before


def test_settings_that_are_equal_and_not_the_same_have_plans_of_their_own(cache: Path) -> None:
    plan_from(STUDY)
    backwards = STUDY | {"experiments": dict(reversed(STUDY["experiments"].items()))}
    assert backwards == STUDY
    assert list(plan_from(backwards).runs) == plan_of(study_from(backwards)).run_names("high_dim") + plan_of(
        study_from(STUDY)
    ).run_names("low_dim")
    with pytest.raises(UserError, match="seeds"):
        plan_from(STUDY | {"seeds": [0, "one"]})
    assert looked_up(STUDY | {"seeds": [False, True]}) is None


def test_other_packages_make_another_plan(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_from(STUDY)
    assert "pydantic-" in plans._installed()
    monkeypatch.setattr(plans, "_installed", lambda: "pydantic-99.dist-info")
    assert looked_up(STUDY) is None


def test_an_edited_library_makes_another_plan_and_an_unchanged_one_needs_no_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # within a second it would stand for the edited file, too
    shutil.copytree(ROOT / "lsc", tmp_path / "lsc", ignore=shutil.ignore_patterns("__pycache__"))
    options = tmp_path / "lsc" / "training" / "options.py"
    original = options.read_text()

    def told() -> list[str]:
        command = [sys.executable, "-c", TOLD, str(DEMO)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()

    digest, torch = told()
    assert torch == "True"
    assert told() == [digest, "False"]
    options.write_text(original.replace("Field(0.9, ge=0, lt=1", "Field(0.8, ge=0, lt=1"))
    edited, torch = told()
    assert (torch, edited == digest) == ("True", False)
    assert told() == [edited, "False"]
    options.write_text(original)
    assert told() == [digest, "False"]
    (tmp_path / "lsc" / "training" / "new.py").touch()
    assert told() == [digest, "True"]


def test_a_library_that_changes_meanwhile_keeps_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = plans._library()
    for imported, seen in (
        ("old", [library] * 2),
        (library, ["new", "new"]),
        (library, [library, "new"]),
        ("", [""] * 2),
    ):
        states = iter(seen)
        monkeypatch.setattr(plans, "_IMPORTED", imported)
        monkeypatch.setattr(plans, "_library", lambda states=states: next(states))
        assert plan_from(STUDY) == plan_of(study_from(STUDY))
        assert not cache.exists()


def test_a_library_that_cannot_be_read_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "_PACKAGE", tmp_path)
    assert plans._library() == ""
    (tmp_path / "gone.py").symlink_to("nowhere")
    assert plans._library() == ""


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\x00", b"half", b"more", b"other", None])
def test_an_entry_that_is_no_plan_is_passed_over(content: bytes | None, cache: Path) -> None:
    made = plan_from(STUDY)
    (entry,) = cache.iterdir()
    whole = entry.read_bytes()
    kinds = {
        b"half": whole[:-20],
        b"more": whole[:-1] + b', "more": 1}',
        b"other": whole.replace(b'"digest"', b'"hash"'),
    }
    entry.unlink()
    if content is None:
        entry.mkdir()
    else:
        entry.write_bytes(kinds.get(content, content))
    assert looked_up(STUDY) is None
    assert plan_from(STUDY) == made
    if content is not None:
        assert entry.read_bytes() == whole


@pytest.mark.parametrize("folder", ["/dev/null", "/proc"])
def test_without_a_cache_that_can_be_written_a_plan_is_made(
    folder: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan_from(STUDY)
    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    assert plan_from(STUDY) == made
    assert looked_up(STUDY) is None


def test_two_processes_at_once_make_one_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-c", TOLD, str(DEMO)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=120)[0].split() for process in processes]
    digest = plan_of(study_from(read_yaml(DEMO))).run_of("low_dim/cosine/seed_0").digest
    assert [words[0] for words in told] == [digest, digest]
    assert len(list((tmp_path / "lsc" / "plans").iterdir())) == 1


def test_a_mistake_is_said_each_time_and_not_kept(cache: Path) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=r"^here\.chapterz: unknown key; did you mean chapters\?$"):
            plan_from(STUDY | {"chapterz": 1}, "here")
    assert not cache.exists()


def test_the_plan_of_something_of_ones_own_is_not_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_pull.py").write_text("from lsc.objectives import Cosine\n\n\nclass Pull(Cosine):\n    pass\n")
    plan = plan_from(merge(STUDY, {"run": {"objective": {"name": "own_pull:Pull"}}}))
    assert "own_pull:Pull" in plan.run_of("low_dim/teacher/seed_0").code
    assert not cache.exists()
