"""Everyday commands stand in the Makefile, and everything else that runs them calls the same."""

import re

import yaml

from tests.conftest import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))


def tools_of(target: str) -> set[str]:
    """The commands of a target, without the files and patterns that they are given."""
    lines = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert lines is not None
    return {bare(line) for line in lines[1].splitlines()}


def bare(command: str) -> str:
    words = command.strip().removeprefix(".venv/bin/").split()
    return " ".join(word for word in words if re.fullmatch(r"--[a-z]+|[a-z-]+", word))


def test_hooks_before_a_commit_are_the_tools_of_make_lint() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = {bare(hook["entry"].replace(" --force-exclude", "")) for hook in hooks}
    assert entries == {command.removesuffix(" workflow") for command in tools_of("lint")}
    assert all(hook["language"] == "system" and hook["entry"].startswith(".venv/bin/") for hook in hooks)


def test_ci_calls_targets_of_the_makefile_on_every_supported_python() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["make"]
    matrix = job["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    called = [*matrix["target"], *(extra["target"] for extra in matrix["include"])]
    assert {target for line in called for target in line.split()} <= TARGETS
    lines = re.findall(r"^(?:\w+=\S+ )?make (.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    local = {word for line in lines for word in line.split() if not word.startswith("--")}
    assert {"test", "test-wheel", "test-slurm", "demo", "lint", "docs"} == local <= TARGETS
    assert "check-pages" in called
