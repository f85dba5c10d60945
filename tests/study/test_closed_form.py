"""Chapter 4's second part and its claim, on the demo's reference records."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from lsc.study.chapters import closed_form
from lsc.study.claims import FAILS, verdicts
from tests.study.shipped import demo, opened


def test_what_is_said_is_what_the_records_hold(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    metrics, runs = records.metrics("closed_form"), closed_form.with_methods(records.summaries("closed_form"))
    table = closed_form.overview(metrics, runs).set_index("method")
    assert list(table.index) == ["cross-entropy", "cosine", "cosine, last layer in closed form"]
    means = 100 * runs.groupby("variant").final_top1.mean()
    assert table["top-1 mean (%)"].to_list() == pytest.approx(
        [means["cross_entropy"], means["cosine"], means["cosine_closed_form"]], abs=0.01
    )
    assert table["before the refit (%)"].isna().tolist() == [True, True, False]
    text = closed_form.findings(metrics, runs)
    for variant in ("cross_entropy", "cosine", "cosine_closed_form"):
        assert f"{means[variant]:.1f} %" in text
    figure = closed_form.draw(metrics, runs)
    assert [line.get_label() for line in figure.axes[0].lines] == list(table.index)
    plt.close(figure)


def test_epochs_to_a_goal_are_those_of_the_curves(tmp_path: Path) -> None:
    metrics = opened(tmp_path, demo()).metrics("closed_form")
    curve = metrics[metrics.variant == "cross_entropy"]
    by_hand = [
        next((row.epoch for row in rows.sort_values("epoch").itertuples() if row.top1 >= 0.7), float("inf"))
        for _, rows in curve.groupby("seed")
    ]
    assert closed_form.epochs_to(0.7, metrics, "cross_entropy") == sum(by_hand) / len(by_hand)
    assert closed_form.epochs_to(1.1, metrics, "cross_entropy") == float("inf")


def test_the_claim_is_judged_by_the_same_rule(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    found = {row["claim"]: row for row in verdicts(records)}
    assert found["C8, ours"]["verdict"] == FAILS  # it does not learn more slowly
    study = demo()
    variants = study["experiments"]["closed_form"]["variants"]
    variants["x"] = variants.pop("cosine_closed_form")
    (tmp_path / "runs" / "closed_form").mkdir(parents=True)
    for old, new in (("cosine_closed_form", "x"), ("cosine", "cosine"), ("cross_entropy", "cross_entropy")):
        (tmp_path / "runs" / "closed_form" / new).symlink_to(records.runs / "closed_form" / old)
    for other in sorted(path for path in records.runs.iterdir() if path.name != "closed_form"):
        (tmp_path / "runs" / other.name).symlink_to(other)
    renamed = {row["claim"]: row for row in verdicts(opened(tmp_path, study))}
    assert renamed["C8, ours"]["came out"] == found["C8, ours"]["came out"]
