"""The workflow: what it would run, and that notebooks and rules agree."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import papermill
import pytest
import yaml

from lsc.training.records import read_rows
from tests.conftest import ROOT, Called, assert_refused, link_tree, tiny_run

CHAPTERS = yaml.safe_load((ROOT / "workflow" / "chapters.yaml").read_text())
PASSED = {"study", "runs", "results"}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The tree without results, in a folder where a workflow may write."""
    link_tree(tmp_path)
    return tmp_path


def snakemake(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["snakemake", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def lsc(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "lsc", *words], cwd=folder, capture_output=True, text=True, timeout=400, env=environment
    )


def test_every_chapter_has_its_notebook_and_every_notebook_its_chapter() -> None:
    assert {chapter["notebook"] for chapter in CHAPTERS.values()} == {
        path.stem for path in (ROOT / "notebooks").glob("*.ipynb")
    }


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_parameter_that_a_rule_passes_exists_in_its_notebook(name: str) -> None:
    known = papermill.inspect_notebook(ROOT / "notebooks" / f"{CHAPTERS[name]['notebook']}.ipynb")
    assert set(known) >= PASSED
    rule = (ROOT / "workflow" / "rules" / "notebooks.smk").read_text()
    assert {word for word in PASSED if f"-p {word} " in rule} == PASSED
    assert rule.count(" -p ") == len(PASSED)


def test_the_demo_would_train_every_run_once(house: Path) -> None:
    from lsc.study.configuration import read_study

    study = read_study(ROOT / "config" / "demo.yaml")
    done = snakemake(house, "-n", "--cores", "2")
    assert done.returncode == 0, done.stderr + done.stdout
    runs = [run for experiment in study.experiments for run in study.run_names(experiment)]
    assert f"train {len(runs)}" in " ".join((done.stdout + done.stderr).split())


def test_the_study_of_characters_is_planned_without_its_fonts(house: Path) -> None:
    done = snakemake(house, "-n", "--cores", "2", "--configfile", "config/glyphs.yaml")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "train 12" in " ".join((done.stdout + done.stderr).split())


def test_measurements_share_the_machine_with_nothing(house: Path) -> None:
    done = snakemake(house, "-n", "--cores", "3", "cost")
    assert done.returncode == 0, done.stderr + done.stdout
    jobs = [job for job in (done.stdout + done.stderr).split("rule ") if job.startswith("cost_")]
    assert [job.split(":")[0] for job in jobs if "threads: 3" in job] == [job.split(":")[0] for job in jobs]
    assert sorted(job.split(":")[0] for job in jobs) == ["cost_decode", "cost_hnsw", "cost_step"]


@pytest.mark.parametrize("target", [[], ["figures"]])
def test_pages_are_not_taken_for_finished_where_records_are_missing(target: list[str], house: Path) -> None:
    """Snakemake takes a page that lies there, if what it is made of can neither be found nor made."""
    (house / "results" / "learning-reference" / "report").mkdir(parents=True)
    (house / "results" / "learning-reference" / "index.html").touch()
    done = snakemake(
        house, "-n", "--cores", "1", "--configfile", "config/learning.yaml", "--config", "records=reference"
    )
    assert done.returncode != 0
    assert "are missing, such as results/reference/learning/runs/" in done.stdout + done.stderr
    assert "make reference STUDY=learning" in done.stdout + done.stderr


def test_a_mistake_in_the_configuration_is_named_and_nothing_runs(house: Path) -> None:
    done = snakemake(house, "-n", "--cores", "1", "--config", "chapterz=1")
    assert done.returncode != 0
    assert "chapterz: unknown key" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_small_study_runs_and_a_single_figure_is_drawn_again(house: Path, lsc_here: Called) -> None:
    small = {
        "study": "small",
        "chapters": ["low_dim"],
        "seeds": [0],
        "run": {
            "data": {"name": "digits", "image_size": 8},
            "encoder": {"width": 4},
            "training": {"duration": "2 epochs", "batch_size": 256},
            "resources": {"mem_mb": 1000},
        },
        "experiments": {
            "low_dim": {
                "variants": {
                    "cross_entropy": {"centers": {"dim": 4}},
                    "cosine": {"objective": {"name": "cosine"}},
                    "cosine_dim_2": {"objective": {"name": "cosine"}, "centers": {"system": "polygon"}},
                    "cosine_dim_3": {"objective": {"name": "cosine"}, "centers": {"system": "A_intrinsic"}},
                }
            }
        },
    }
    (house / "small.yaml").write_text(yaml.safe_dump(small))
    done = snakemake(house, "--cores", "2", "--configfile", "small.yaml")
    assert done.returncode == 0, done.stderr
    results = house / "results" / "small"
    for name in CHAPTERS["low_dim"]["figures"]:
        assert (results / "figures" / f"{name}.png").stat().st_size > 5000
        assert (results / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert f"figures/{name}.png" in (results / "index.html").read_text()
    assert "2. Low dimension" in (results / "notebooks" / "2_low_dim.html").read_text()
    assert (results / "tables" / "low_dim_accuracy.csv").read_text().count("\n") == 5
    # Nothing is left to do, and a single figure is drawn again without training.
    again = snakemake(house, "-n", "--cores", "1", "--configfile", "small.yaml")
    assert "Nothing to be done" in again.stdout + again.stderr
    one = snakemake(
        house, "-n", "--cores", "1", "--configfile", "small.yaml", "-f", "results/small/figures/low_dim_confusion.png"
    )
    assert "train" not in one.stdout.split("Job stats")[-1].split("total")[0]
    # The report holds every page, figure and table under the title of its chapter.
    done = snakemake(house, "--cores", "1", "--configfile", "small.yaml", "--report", "report.zip")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(house / "report.zip") as archive:
        told = "".join(archive.read(name).decode() for name in archive.namelist() if name.endswith((".html", ".js")))
    shown = [f"{name}.png" for name in CHAPTERS["low_dim"]["figures"]] + ["2_low_dim.html", "low_dim_accuracy.csv"]
    for words in (*shown, CHAPTERS["low_dim"]["title"], "A figure of the chapter"):
        assert words in told, words
    assert "docs/replication.md" in told
    assert 'docs/replication.md"' not in told  # links lead to what is in the report alone
    # What the workflow costs by itself is measured on the finished study, and refused on one that is not.
    words = ("cost", "workflow", "--study", "small.yaml", "--figure", "low_dim_confusion", "--repetitions", "1")
    done = lsc(house, *words, "--output", "results/small/cost/workflow.jsonl")
    assert done.returncode == 0, done.stderr
    measured = {row["what"]: row for row in read_rows(results / "cost" / "workflow.jsonl")}
    assert list(measured) == ["nothing", "figure", "start", "torch", "jobs"]
    assert all(row["seconds"] > 0 for row in measured.values())
    assert measured["jobs"]["runs"] == 4
    assert measured["jobs"]["training_seconds"] + measured["jobs"]["startup_seconds"] < measured["jobs"]["seconds"]
    assert_refused(lsc_here(*words, "--whole"), "results/small exists", "from nothing")
    assert_refused(lsc_here(*words[:4], "--figure", "nothing"), "--figure nothing", "there is no")
    (results / "index.html").unlink()
    assert_refused(lsc_here(*words), "not finished", "snakemake --cores all --configfile small.yaml")


@pytest.mark.slow
def test_the_paper_study_runs_on_small_trees_of_the_same_layout(house: Path, lsc_here: Called) -> None:
    """From archive and folders to records by the rules of the paper study; only sizes and durations are changed."""

    def data(*words: str) -> None:
        done = lsc_here("data", *words)
        assert done.returncode == 0, done.stderr

    data("tree", "cinic10", "--root", "tree", "--per-class", "2", "--archive", "CINIC-10.tar.gz")
    md5 = hashlib.md5((house / "CINIC-10.tar.gz").read_bytes()).hexdigest()
    data("fetch", "cinic10", "--root", "data/cinic10", "--archive", "CINIC-10.tar.gz", "--md5", md5)
    data("tree", "imagenet", "--root", "data/imagenet", "--classes", "4", "--per-class", "6")
    data("index", "imagenet", "--root", "data/imagenet", "--out", "data/imagenet/index.parquet")
    short = {"duration": "3 steps", "warmup": "1 steps", "batch_size": 4, "evaluation_batch_size": 16}
    resources = {"gpu": 0, "cpus_per_task": 1, "mem_mb": 1000}
    small = {
        "experiments": {
            "low_dim": {"run": {"training": short, "resources": resources}},
            "high_dim": {
                "run": {"data": {"image_size": 32, "valid_every": 4}, "training": short, "resources": resources}
            },
            "million_classes": {
                "run": {
                    "data": {"of": {"image_size": 32}, "test_images": 8},
                    "training": short | {"neighbours": 3},
                    "resources": resources,
                }
            },
            "distillation": {"run": {"resources": resources}},
            "lifelong": {"run": {"resources": resources}},
        }
    }
    (house / "small.yaml").write_text(yaml.safe_dump(small))
    runs = ("low_dim/cosine", "high_dim/cosine", "million_classes/cosine_1281167", "million_classes/partial_fc_1281167")
    targets = [f"results/paper/runs/{run}/seed_0/summary.json" for run in runs]
    done = snakemake(house, "--cores", "2", *targets, "--configfile", "config/paper.yaml", "small.yaml")
    assert done.returncode == 0, done.stderr
    low, high, million, partial = (json.loads((house / target).read_text()) for target in targets)
    assert (low["num_classes"], low["dim"], low["steps"], low["final_on"]) == (10, 4, 3, "test")
    assert (high["num_classes"], high["dim"], high["scored_on"], high["final_on"]) == (4, 384, "valid", "test")
    assert (million["num_classes"], million["objective_parameters"]) == (24, 0)
    assert (partial["encoder_parameters"], partial["objective_parameters"]) == (million["encoder_parameters"], 24 * 384)
    assert 0 <= million["neighbour_top1"] <= 1


@pytest.mark.slow
def test_chapters_are_rendered_from_reference_records_without_training(house: Path) -> None:
    from lsc.training.loop import train

    for objective, variant in (("cross_entropy", "student_cross_entropy"), ("cosine", "student_labels")):
        out = house / "results" / "reference" / "kept" / "runs" / "distillation" / variant / "seed_0"
        train(tiny_run(objective={"name": objective}), out)
        for name in ("encoder.safetensors", "objective.safetensors"):
            (out / name).unlink()
    study = {
        "study": "kept",
        "chapters": ["distillation"],
        "run": tiny_run().plain() | {"centers": {"dim": 3}},
        "experiments": {"distillation": {"variants": {"student_cross_entropy": {}, "student_labels": {}}}},
    }
    for key in ("experiment", "variant", "seed", "teacher", "lifelong", "resources", "objective"):
        study["run"].pop(key)
    (house / "kept.yaml").write_text(yaml.safe_dump(study))
    done = snakemake(house, "--cores", "1", "--configfile", "kept.yaml", "--config", "records=reference")
    assert done.returncode == 0, done.stderr
    assert "rule train" not in done.stderr
    assert (house / "results" / "kept-reference" / "figures" / "distillation_accuracy.png").exists()
    assert yaml.safe_load((house / "results" / "kept-reference" / "study.yaml").read_text())["records"] == "reference"


@pytest.mark.parametrize("name", ["config/demo.yaml", "config/gpu.yaml", "config/paper.yaml", "workflow/chapters.yaml"])
def test_no_key_stands_twice(name: str) -> None:
    """YAML takes the last of two silently."""

    def check(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(set(keys)) == len(keys), keys
            for _, value in node.value:
                check(value)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                check(value)

    check(yaml.compose((ROOT / name).read_text()))
