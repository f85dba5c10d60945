"""Chapter 4's second part and its claim, on the demo's reference records."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import yaml

from lsc.study.chapters import closed_form
from lsc.study.claims import verdicts
from lsc.study.judging import FAILS
from lsc.study.wording import apart, seconds_differ
from tests.conftest import ROOT
from tests.study.shipped import REFERENCE, demo, opened


def test_what_is_said_is_what_the_records_hold(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    metrics, runs = records.metrics("closed_form"), closed_form.with_methods(records.summaries("closed_form"))
    table = closed_form.overview(metrics, runs).set_index("method")
    names = ["cross_entropy", "cosine", "cosine_closed_form", "softmax_fitted"]
    assert list(table.index) == list(dict.fromkeys(runs.shown))
    assert [name.partition(", ")[2] for name in table.index] == ["", "", "last layer in closed form", "centers fitted"]
    means = 100 * runs.groupby("variant").final_top1.mean()
    assert table["top-1 mean (%)"].to_list() == pytest.approx([means[name] for name in names], abs=0.01)
    assert table["before the refit (%)"].isna().tolist() == [True, True, False, True]
    text = closed_form.findings(metrics, runs)
    for variant in names:
        assert f"{means[variant]:.1f} %" in text
    figure = closed_form.draw(metrics, runs)
    assert [line.get_label() for line in figure.axes[0].lines] == list(table.index)
    plt.close(figure)


def test_every_set_of_classes_has_its_panels_and_its_paragraph(tmp_path: Path) -> None:
    metrics, runs = closed_form.gathered(opened(tmp_path, demo()))
    parts = list(dict.fromkeys(runs.part))
    assert [part.partition(" classes of ")[2] for part in parts] == ["fractals", "glyphs"]
    figure = closed_form.draw(metrics, runs)
    assert [axes.get_title() or axes.get_title(loc="left") for axes in figure.axes] == [*parts, "", ""]
    plt.close(figure)
    assert list(dict.fromkeys(closed_form.overview(metrics, runs).classes)) == parts
    *paragraphs, on_time = closed_form.findings(metrics, runs).split("\n\n")
    assert on_time == seconds_differ(runs)
    assert [text.startswith(f"Among {part}") for text, part in zip(paragraphs, parts, strict=True)] == [True, True]
    told, last = closed_form.in_short(runs), runs[runs.part == parts[-1]]
    assert f"Among {parts[-1]}" in told
    # The best of the library's own, and the baseline with what a last refit makes of it, which is none of ours.
    best = last[last.has_centers.astype(bool)].final_top1.max()
    refitted = last[(last.role == "baseline") & last.solved].final_top1
    assert f"reaches {100 * best:.1f} % where" in told
    assert f"({100 * refitted.mean():.1f} % with a refit of its own)" in told


def test_a_run_that_is_shorter_than_the_others_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(REFERENCE.parent / "learning_gpu" / "runs")
    records = opened(tmp_path, yaml.safe_load((ROOT / "config" / "learning_gpu.yaml").read_text()))
    metrics, runs = closed_form.gathered(records)
    assert "take 1,952 steps (cosine, last layer in closed form with 732)." in closed_form.protocol(runs)
    mine = metrics[(metrics.experiment == "closed_form_10000") & (metrics.variant == "cosine_closed_form")]
    assert mine.epoch.tolist() == [1.0, 1.5]
    table = closed_form.overview(metrics, runs)
    assert table[table.classes.str.startswith("10,000")]["epochs to 95% of the baseline"].tolist() == [
        "3.0",
        "1.5",
        "1.0",
    ]


def test_epochs_to_a_goal_are_those_of_the_curves(tmp_path: Path) -> None:
    metrics = opened(tmp_path, demo()).metrics("closed_form")
    curve = metrics[metrics.variant == "cross_entropy"]
    by_hand = [
        next((row.epoch for row in rows.sort_values("epoch").itertuples() if row.top1 >= 0.7), float("inf"))
        for _, rows in curve.groupby("seed")
    ]
    assert closed_form.epochs_to(0.7, metrics, "cross_entropy") == sum(by_hand) / len(by_hand)
    assert closed_form.epochs_to(1.1, metrics, "cross_entropy") == float("inf")


def test_a_curve_that_falls_below_the_goal_again_is_told() -> None:
    curves = pd.DataFrame(
        {"variant": "a", "seed": [0, 0, 0, 1, 1], "epoch": [1, 2, 3, 1, 2], "top1": [0.8, 0.5, 0.9, 0.8, 0.9]}
    )
    assert closed_form.falls_back(0.7, curves, "a")
    assert not closed_form.falls_back(0.7, curves[curves.seed == 1], "a")
    assert not closed_form.falls_back(0.95, curves, "a")


def test_the_claim_is_judged_by_the_same_rule(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    found = {row["claim"]: row for row in verdicts(records)}
    assert found["C8, ours"]["verdict"] == FAILS  # it does not learn more slowly
    study = demo()
    variants = study["experiments"]["closed_form"]["variants"]
    variants["x"] = variants.pop("cosine_closed_form")
    (tmp_path / "runs" / "closed_form").mkdir(parents=True)
    for old, new in (("cosine_closed_form", "x"), *((name, name) for name in variants if name != "x")):
        (tmp_path / "runs" / "closed_form" / new).symlink_to(records.runs / "closed_form" / old)
    for other in sorted(path for path in records.runs.iterdir() if path.name != "closed_form"):
        (tmp_path / "runs" / other.name).symlink_to(other)
    renamed = {row["claim"]: row for row in verdicts(opened(tmp_path, study))}
    for claim in ("C8, ours", "C8, fitted"):
        assert renamed[claim]["came out"] == found[claim]["came out"]


def test_the_goal_is_the_end_of_the_baselines_own_curve(tmp_path: Path) -> None:
    """Where the curves are of validation images that are harder than those of the test, nothing changes but their height."""
    records = opened(tmp_path, demo())
    metrics, runs = records.metrics("closed_form"), closed_form.with_methods(records.summaries("closed_form"))
    harder, valid = metrics.assign(top1=metrics.top1 / 2), runs.assign(scored_on="valid")
    column = "epochs to 95% of the baseline"
    before, after = closed_form.overview(metrics, runs), closed_form.overview(harder, valid)
    assert after[column].tolist() == before[column].tolist()
    assert before[column][0] != "—"
    said = closed_form.findings(harder, valid)
    assert "and first 95% of what its validation curve ends with after" in said
    assert closed_form.findings(metrics, runs) == said.replace("validation", "test")
    figure = closed_form.draw(harder, valid)
    assert figure.axes[0].get_ylabel() == "validation accuracy (%)"
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert "after the last refit, its pass included, on the test images" in labels
    plt.close(figure)
    assert closed_form.end_of_curve(metrics, runs[runs.variant == "cross_entropy"]) == pytest.approx(
        runs[runs.variant == "cross_entropy"].final_top1.mean()
    )


def test_seconds_have_their_range(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    metrics, runs = records.metrics("closed_form"), closed_form.with_methods(records.summaries("closed_form"))
    own = runs[runs.shown == runs.shown.iloc[0]].seconds
    told = f"{own.mean():.1f} ({own.min():.1f} to {own.max():.1f})"
    table = closed_form.overview(metrics, runs)
    assert table["training time (s)"][0] == round(own.mean(), 1)
    assert closed_form.overview_shown(table)["training time (s)"][0] == told
    assert closed_form.overview_shown(table.iloc[:0]).empty
    assert "runs that differ in the seed alone are up to" in closed_form.findings(metrics, runs)


def test_what_rounding_alone_sets_apart_is_alike() -> None:
    one, other = (pd.DataFrame({"final_top1": [value]}) for value in (1.7361111111111076, 1.7361111111111105))
    assert not apart(one, other)
    assert apart(one, other + 1e-3)


def test_an_account_says_how_settings_were_chosen(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    assert "Choice of settings: image size, depth, heads, batch and warm-up in a few early" in records.account(
        "high_dim"
    )
    assert "Choice of settings" not in records.account("low_dim")
    everywhere = opened(tmp_path, demo() | {"chosen": "by trial."})
    assert everywhere.account("low_dim").endswith("Choice of settings: by trial.")
