"""A path with a space in it is one word of every command that the workflow runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lsc.training.records import RUN_FILES
from tests.conftest import ROOT, link_tree

# Stands in for lsc: notes its words and makes the files that the rules expect of it.
LSC = f"""\
#!{sys.executable} -SE
import json, sys
from pathlib import Path
words = sys.argv[1:]
with open("calls.jsonl", "a") as file:
    file.write(json.dumps(words) + "\\n")
def option(name):
    return Path(words[words.index(name) + 1])
if words[:3] == ["data", "fetch", "cinic10"]:
    made = [option("--root") / "cinic10.safetensors"]
elif words[:3] == ["data", "index", "imagenet"]:
    made = [option("--out")]
elif words[0] == "train":
    made = [option("--out") / name for name in {RUN_FILES!r}]
else:
    made = []
for path in made:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
"""


@pytest.mark.parametrize("name", ["cost", "data", "notebooks", "train"])
def test_every_part_of_every_shell_line_is_quoted(name: str) -> None:
    text = (ROOT / "workflow" / "rules" / f"{name}.smk").read_text()
    lines = re.findall(r"shell:\n((?:\s+[\"'].*[\"']\n)+)", text)
    assert len(lines) == text.count("shell:\n") > 0
    for part in re.findall(r"\{[^{}]+\}", "".join(lines)):
        assert part.endswith(":q}"), part


def test_a_data_root_with_a_space_is_one_folder(tmp_path: Path) -> None:
    link_tree(tmp_path)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "lsc").write_text(LSC)
    (tmp_path / "tools" / "lsc").chmod(0o755)
    (tmp_path / "my").write_text("precious")
    (tmp_path / "my data" / "imagenet").mkdir(parents=True)
    data = {
        "one": {"name": "cinic10", "root": "my data/cinic10"},
        "two": {"name": "imagenet", "root": "my data/imagenet", "index": "my data/imagenet/index.parquet"},
    }
    study = {
        "study": "small",
        "chapters": ["low_dim"],
        "experiments": {"low_dim": {"variants": {name: {"data": block} for name, block in data.items()}}},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(study))
    targets = [f"results/small/runs/low_dim/{name}/seed_0/summary.json" for name in data]
    done = subprocess.run(
        ["snakemake", "--cores", "1", *targets, "--configfile", "small.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{tmp_path / 'tools'}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "my").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("my")) == ["my", "my data"]
    assert (tmp_path / "my data" / "cinic10" / "fetch.log").exists()
    calls = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    roots = [call[call.index("--root") + 1] for call in calls if call[0] == "data"]
    assert sorted(set(roots)) == ["my data/cinic10", "my data/imagenet"]
