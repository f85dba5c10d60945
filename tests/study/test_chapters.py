"""Figures, tables and sentences of the chapters follow the settings of the runs, on the demo's reference records."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lsc.objectives import Cosine
from lsc.study import plots
from lsc.study.chapters import closed_form, distillation, high_dim, lifelong, low_dim, million_classes
from lsc.study.claims import verdicts
from lsc.study.tables import Records
from lsc.study.wording import caveat
from tests.study.shipped import REFERENCE, demo, opened, renamed


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def lines(figure: Figure, panel: int = 0) -> dict[str, Any]:
    """The labelled lines of a panel, by label."""
    return {
        str(line.get_label()): line for line in figure.axes[panel].lines if not str(line.get_label()).startswith("_")
    }


def sentences(records: Records) -> dict[str, str]:
    runs = {name: records.summaries(name) for name in records.study.experiments}
    best = high_dim.by_accuracy(runs["high_dim"][runs["high_dim"].role != "baseline"]).shown.iloc[0]
    return {
        "low_dim": low_dim.gaps(runs["low_dim"]),
        # Of all names this one alone is that of a variant.
        "high_dim": high_dim.findings(runs["high_dim"]).replace(best, "BEST"),
        "million_classes": million_classes.findings(million_classes.with_methods(runs["million_classes"])),
        "closed_form": closed_form.findings(
            records.metrics("closed_form"), closed_form.with_methods(records.summaries("closed_form"))
        ),
        "distillation": distillation.gains(distillation.with_parts(runs["distillation"])),
        "lifelong": lifelong.findings(lifelong.ends(records.metrics("lifelong")), runs["lifelong"]),
    }


@pytest.mark.parametrize("name", ["x{:02}", "x{:02}_cross_entropy", "stretch_{:02}_1000_wide"])
def test_what_is_said_depends_on_no_name_of_a_variant(name: str, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    before, after = opened(tmp_path / "a", demo()), renamed(tmp_path / "b", lambda _, place: name.format(place))
    assert sentences(after) == sentences(before)
    assert verdicts(after) == verdicts(before)


def test_the_sentences_hold_the_numbers_of_the_tables(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    said = sentences(records)
    mean = 100 * records.summaries("low_dim").groupby("variant").final_top1.mean()
    assert f"cross-entropy reaches {mean['cross_entropy']:.2f} %" in said["low_dim"]
    assert f"Exact softmax is {abs(mean['cross_entropy'] - mean['orbit_softmax']):.2f} points" in said["low_dim"]
    mean = 100 * records.summaries("high_dim").groupby("variant").final_top1.mean()
    assert f"they reach {mean['cosine_wide']:.1f} % and {mean['cross_entropy_wide']:.1f} %" in said["high_dim"]
    assert f"In 11 dimensions, they reach {mean['cosine_dim_11']:.1f} %." in said["high_dim"]
    mean = 100 * records.summaries("distillation").groupby("variant").final_top1.mean()
    gain = mean["student_both"] - mean["student_labels"]
    assert f"labels and embeddings: {gain:+.1f} points against labels, cosine centers" in said["distillation"]
    mean = 100 * records.summaries("lifelong").groupby("variant").final_top1.mean()
    pair = f"20 images kept per class: {mean['cosine_replay_20']:.1f} % against {mean['cross_entropy_replay_20']:.1f} %"
    assert pair in said["lifelong"]


def test_wins_and_losses_are_both_told(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    said = sentences(records)
    mean = 100 * records.summaries("low_dim").groupby("variant").final_top1.mean()
    for dim in (2, 3, 16):
        ours, theirs = mean[f"cosine_dim_{dim}"], mean[f"cross_entropy_dim_{dim}"]
        word = "ahead" if ours > theirs else "behind"
        gap = f"{abs(ours - theirs):.1f} points {word}" if abs(ours - theirs) >= 0.05 else "level"
        assert f"in {dim} dimensions {ours:.1f} % against {theirs:.1f} %, {gap}" in said["low_dim"]
    runs = distillation.with_parts(records.summaries("distillation"))
    best = runs[runs.part == "student"].groupby("taught").final_top1.mean().idxmax()
    assert f"The best student is the one with {best}" in said["distillation"]
    table = lifelong.forgetting(lifelong.ends(records.metrics("lifelong")), records.summaries("lifelong"))
    auroc = table.set_index("variant")["new classes noticed (AUROC)"]
    kept = "20 images kept per class"
    pair = f"{auroc[f'cosine: {kept}']:.2f} against {auroc[f'cross-entropy: {kept}']:.2f}"
    assert f"20 images kept per class: {pair}" in said["lifelong"]


def test_equal_means_are_level(tmp_path: Path) -> None:
    runs = opened(tmp_path, demo()).summaries("low_dim").assign(final_top1=0.9)
    assert low_dim.in_short(runs).endswith("level with it in 2 (90.0 % against 90.0 %), 3 (90.0 % against 90.0 %), "
        "4 (90.0 % against 90.0 %) and 16 (90.0 % against 90.0 %) dimensions.")  # fmt: skip


def test_a_dimension_has_one_system(tmp_path: Path) -> None:
    """Another one in the same dimension is no further seed."""
    runs = opened(tmp_path, demo()).summaries("low_dim")
    other = runs[runs.variant == "cosine"].assign(
        variant="cosine_v21", system="V21", final_top1=0.5, changes=[{"centers.system": "V21"}] * 2
    )
    for table in (pd.concat([runs, other]), pd.concat([other, runs])):
        assert low_dim.in_short(table) == low_dim.in_short(runs)


def test_an_accuracy_above_all_ticks_is_drawn(tmp_path: Path) -> None:
    runs = opened(tmp_path, demo()).summaries("low_dim")
    figure = low_dim.draw_by_dimension(runs.assign(final_top1=runs.final_top1.where(runs.dim != 16, 1.0)))
    assert figure.axes[0].get_ylim()[1] == pytest.approx(1.0)


def test_one_seed_says_nothing_of_chance_and_one_number_of_classes_nothing_of_others(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    runs = distillation.with_parts(records.summaries("distillation"))
    for said in (distillation.in_short(runs[runs.seed == 0]), distillation.gains(runs[runs.seed == 0])):
        assert "one seed, so that how far seeds differ is not known" in said
        assert "0.0 points" not in said
    runs = million_classes.with_methods(records.summaries("million_classes"))
    assert million_classes.in_short(runs).startswith(
        "One and the same network takes 100, 1,000 and 1,281,167 classes (1,281,167 in a stretch of 30 steps, no training)"
    )
    assert "vectors of one system in one dimension, V22 with 64 coordinates," in million_classes.protocol(runs)
    assert million_classes.in_short(runs[runs.num_classes == 100]).startswith("There are runs of 100 classes")


def test_variants_of_one_protocol_have_names_and_lines_of_their_own(tmp_path: Path) -> None:
    """Also more of them than there are kinds of dashes."""
    records = opened(tmp_path, demo())
    runs, states = records.summaries("lifelong"), lifelong.ends(records.metrics("lifelong"))
    own, seen = runs[runs.variant == "cosine_replay_20"], states[states.variant == "cosine_replay_20"]
    more = [f"cosine_dim_{number}" for number in range(7)]
    many = pd.concat(
        [runs, *(own.assign(variant=name, changes=[{**own.changes.iloc[0], "centers.dim": name}] * 2) for name in more)]
    )
    at = pd.concat([states, *(seen.assign(variant=name) for name in more)])
    table = lifelong.forgetting(at, many)
    assert table.variant.is_unique
    assert "cosine (cosine dim 3): 20 images kept per class" in table.variant.tolist()
    assert len(lifelong.draw_novelty(at, many).axes) == len(lifelong.draw_novelty(states, runs).axes)
    assert lifelong.names(runs)["cosine_replay_20"] == "cosine"


def test_a_mean_is_rounded_once(tmp_path: Path) -> None:
    runs = opened(tmp_path, demo()).summaries("low_dim")
    table = plots.accuracy_shown(plots.accuracy_table(runs.assign(final_top1=0.973_46)))
    assert set(table["accuracy (%)"]) == {"97.3 (97.3 to 97.3)"}
    table = plots.accuracy_shown(plots.accuracy_table(runs.assign(final_top1=0.973_546)))
    assert set(table["accuracy (%)"]) == {"97.4 (97.4 to 97.4)"}


@pytest.mark.parametrize("gone", ["closed_form", "cross_entropy"])
def test_a_study_that_lacks_something_has_its_chapters_all_the_same(gone: str, tmp_path: Path) -> None:
    study = demo()
    if gone in study["experiments"]:
        del study["experiments"][gone]
    for block in study["experiments"].values():
        block["variants"] = {
            name: settings for name, settings in block["variants"].items() if not name.startswith(gone)
        }
    records = opened(tmp_path, study)
    assert all(isinstance(text, str) for text in sentences(records).values())
    runs = closed_form.with_methods(records.summaries("closed_form"))
    metrics = records.metrics("closed_form")
    assert len(closed_form.draw(metrics, runs).texts) == (gone == "closed_form")
    assert closed_form.overview(metrics, runs).empty == (gone == "closed_form")
    low, high, many = (records.summaries(name) for name in ("low_dim", "high_dim", "million_classes"))
    for text in (
        low_dim.in_short(low), high_dim.in_short(high, ""), million_classes.in_short(million_classes.with_methods(many)),
        lifelong.in_short(records.summaries("lifelong"), records.summaries("scripts")),
    ):  # fmt: skip
        assert isinstance(text, str)


def test_of_two_rows_at_one_step_the_later_is_the_end_of_a_phase() -> None:
    """As where sums are taken in: the row before and the row after."""
    rows = [
        {"variant": f"v{place}", "seed": 0, "phase": phase, "step": 10 * (phase + 1), "top1": top1}
        for place in range(30)
        for phase in range(3)
        for top1 in (0.1, 0.9)
    ]
    assert set(lifelong.ends(pd.DataFrame(rows)).top1) == {0.9}


def test_a_variant_called_big_cosine_is_drawn_and_averaged_as_cosine(tmp_path: Path) -> None:
    records = renamed(tmp_path, lambda old, _: "big_cosine" if old == "cosine_dim_16" else old)
    runs = records.summaries("low_dim")
    by_dimension = low_dim.by_dimension(runs)
    assert set(by_dimension[by_dimension.dim == 16].variant) == {"cross_entropy_dim_16", "big_cosine"}
    line = lines(low_dim.draw_by_dimension(runs))["cosine"]
    assert line.get_color() == Cosine.color
    mean = runs[runs.variant == "big_cosine"].final_top1.mean()
    assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True))[16] == pytest.approx(mean)
    style = plots.line_styles(runs)["big_cosine"]
    assert (style["color"], style["label"]) == (Cosine.color, "cosine, dim 16")


def test_every_student_is_in_the_figures_of_chapter_5(tmp_path: Path) -> None:
    study = demo()
    study["experiments"]["distillation"]["variants"]["student_tiny"] = {"encoder": {"width": 2}}
    experiment = tmp_path / "runs" / "distillation"
    experiment.mkdir(parents=True)
    for path in (REFERENCE / "runs" / "distillation").iterdir():
        (experiment / path.name).symlink_to(path)
    (experiment / "student_tiny").symlink_to(REFERENCE / "runs" / "distillation" / "student_labels")
    records = opened(tmp_path, study)
    runs = distillation.with_parts(records.summaries("distillation"))
    figure = distillation.draw_accuracy(records.metrics("distillation"), runs)
    tiny = "labels, cosine centers (student tiny)"
    assert f"student: {tiny}" in [label.get_text() for label in figure.axes[0].get_yticklabels()]
    drawn = lines(figure, 1)
    assert tiny in drawn
    other = drawn["labels, cosine centers (student labels)"]
    assert (drawn[tiny].get_color(), drawn[tiny].get_linestyle()) != (other.get_color(), other.get_linestyle())
    assert f"student: {tiny}" in set(plots.accuracy_table(runs).variant)
    assert set(runs[runs.part == "teacher"].variant) == {"teacher", "teacher_cross_entropy"}


def test_what_the_study_does_not_name_is_drawn_nowhere(tmp_path: Path) -> None:
    study = demo()
    for experiment, gone in (
        ("low_dim", "cosine_perturbed_30"), ("high_dim", "cosine_v22"), ("million_classes", "cross_entropy_100"),
        ("lifelong", "cosine_joint"),
    ):  # fmt: skip
        del study["experiments"][experiment]["variants"][gone]
    records = opened(tmp_path, study)
    metrics, runs = (
        {name: read(name) for name in study["experiments"]} for read in (records.metrics, records.summaries)
    )
    assert list(lines(low_dim.draw_accuracy(metrics["low_dim"], runs["low_dim"]), 1)) == [
        "cosine",
        "cosine, perturbed by 10 %",
    ]
    kinds = lines(high_dim.draw_choices(metrics["high_dim"], runs["high_dim"]), 1)
    assert sorted(kinds) == ["cosine", "cosine, dim 11"]
    many = million_classes.with_methods(runs["million_classes"])
    assert list(many[many.role == "baseline"].num_classes) == [1000]
    (drawn,) = (line for label, line in lines(million_classes.draw_scaling(many)).items() if label == "cross-entropy")
    assert list(drawn.get_xdata()) == [1000]
    states = lifelong.ends(metrics["lifelong"])
    panels = {axes.get_title(): axes for axes in lifelong.draw_accuracy(states, runs["lifelong"]).axes}
    joint = panels["all images kept (joint)"]
    assert [line.get_label() for line in joint.lines] == ["cross-entropy"]
    assert len(lifelong.forgetting(states, runs["lifelong"])) == 9


def test_methods_that_differ_in_a_setting_of_the_objective_are_not_averaged(tmp_path: Path) -> None:
    study = demo()
    layer = {"name": "partial_fc", "sample_rate": 0.1}
    large = {"num_classes": 1000, "test_per_class": 2}
    variants = study["experiments"]["million_classes"]["variants"]
    variants["cross_entropy_1000"] = {"data": large, "objective": layer}
    variants["cosine_1000"] = {"data": large, "objective": layer | {"sample_rate": 0.3}}
    runs = million_classes.with_methods(opened(tmp_path, study).summaries("million_classes"))
    assert {"Partial FC", "Partial FC, sample rate 0.3"} <= set(runs.method) or {
        "Partial FC, sample rate 0.1",
        "Partial FC, sample rate 0.3",
    } <= set(runs.method)


def test_time_to_accuracy_is_measured_against_the_same_read_out(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    metrics, runs = records.metrics("high_dim"), records.summaries("high_dim")
    # With a goal for the wide read-out that cross-entropy alone reaches, and at its very end, wide centers fail.
    end = (metrics.variant == "cross_entropy_wide") & (metrics.epoch == metrics.epoch.max())
    table = high_dim.time_to_accuracy(metrics.assign(top1=metrics.top1.mask(end, 3.0)), runs).set_index("variant")
    assert table.loc["cosine, 512 hidden", "epochs to 50%"] == "—"
    assert table.loc["cross-entropy, 512 hidden", "epochs to 50%"] == "4.0 (4.0 to 4.0)"
    assert (table.loc[["cosine", "cross-entropy"], "epochs to 50%"] != "—").all()


def test_embeddings_are_those_of_their_dimension(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    runs = records.summaries("low_dim")
    assert titles(low_dim.draw_plane(records, runs)) == ["cross-entropy, dim 2", "cosine, dim 2"]
    in_space = ["cross-entropy, dim 3", "cosine, dim 3", "cosine, 6 classes"]
    assert titles(low_dim.draw_space(records, runs)) == in_space
    assert titles(low_dim.draw_confusion(records, runs)) == ["cross-entropy", "cosine"]


def titles(figure: Figure) -> list[str]:
    return [axes.get_title("center") or axes.get_title("left") for axes in figure.axes]


def test_vacant_vectors_are_counted_where_they_tell_something(tmp_path: Path) -> None:
    """Of centers in a numbered system; a layer has none, and of codes nearly all vectors are vacant."""
    records = opened(tmp_path, demo())
    runs = records.summaries("scripts")
    table = lifelong.forgetting(lifelong.ends(records.metrics("scripts")), runs).set_index("variant")
    told = set(table.index[table["vacant, new classes (%)"].notna()])
    assert told == {"cosine: 2 images kept per class", "cosine: sums kept, no images"}
    assert set(table.index) - told == {
        "cross-entropy: 2 images kept per class",
        "softmax over used centers, centers fitted: sums kept, no images",
    }


def test_final_accuracy_and_forgetting_are_told_apart_where_they_are_of_other_images(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    runs, states = records.summaries("lifelong"), lifelong.ends(records.metrics("lifelong"))
    assert lifelong.scored(runs) == ""
    other = runs.assign(scored_on="valid", final_top1=0.5 + runs.seed / 10)
    table = lifelong.forgetting(states, other)
    assert set(table["final accuracy (%)"].round(6)) == {55.0}
    assert set(table["final accuracy (%), min"].round(6)) == {50.0}
    assert table["forgetting (points)"].tolist() == lifelong.forgetting(states, runs)["forgetting (points)"].tolist()
    assert set(lifelong.forgetting_shown(table)["final accuracy (%)"]) == {"55.0 (50.0 to 60.0)"}
    said = lifelong.scored(other)
    assert "final accuracy is that on the test images; all else is measured on the validation images" in said
    assert lifelong.draw_accuracy(states, other).axes[0].get_ylabel() == "validation accuracy (%)"


def test_what_is_forgotten_is_what_the_records_hold(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    runs, metrics = records.summaries("lifelong"), records.metrics("lifelong")
    states = lifelong.ends(metrics)
    table = lifelong.forgetting(states, runs).set_index("variant")["forgetting (points)"]
    kept = "20 images kept per class"
    said = lifelong.findings(states, runs)
    assert f"{kept}: {table[f'cosine: {kept}']:.1f} against {table[f'cross-entropy: {kept}']:.1f}" in said
    # Where no accuracy falls after it was reached, nothing is forgotten.
    ours = states.variant.isin(runs[runs.pulls_by == "cosine"].variant)
    flat = [[1.0] * len(groups) if mine else groups for groups, mine in zip(states.group_top1, ours, strict=True)]
    never = lifelong.findings(states.assign(group_top1=flat), runs)
    assert (
        "Networks with centers forget less than those with a growing layer in 4 and more in 0 of 4 comparisons" in never
    )
    assert "nothing kept: 0.0 against" in never


def test_what_the_seeds_do_not_tell_apart_is_said_everywhere(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    seeds = " (within the range of the seeds)"
    runs = records.summaries("high_dim")
    close = runs.assign(final_top1=0.8 + 0.02 * runs.seed + 0.001 * runs.has_centers.astype(float))
    assert f"0.1 points ahead{seeds}." in high_dim.findings(close)
    assert f"81.1 % against 81.0 %{seeds} with a linear read-out" in high_dim.in_short(close, "")
    far = runs.assign(final_top1=0.8 + 0.02 * runs.seed + 0.1 * runs.has_centers.astype(float))
    assert seeds not in high_dim.findings(far)
    runs, states = records.summaries("lifelong"), lifelong.ends(records.metrics("lifelong"))
    close = runs.assign(final_top1=0.8 + 0.02 * runs.seed + 0.001 * runs.has_centers.astype(float))
    assert f"81.1 % against 81.0 %, 0.1 points ahead{seeds}" in lifelong.findings(states, close)
    assert f"81.1 % against 81.0 %{seeds} with nothing kept" in lifelong.in_short(close, close.iloc[:0])
    runs = distillation.with_parts(records.summaries("distillation"))
    close = runs.assign(final_top1=0.8 + 0.02 * runs.seed + 0.001 * (runs.targets == "embeddings"))
    assert f"points against labels, cosine centers{seeds}" in distillation.gains(close)
    assert f"81.0 %{seeds}; the seeds" in distillation.in_short(close)


def test_seconds_are_shown_with_what_they_are_worth(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    metrics, runs = records.metrics("high_dim"), records.summaries("high_dim")
    runs = runs.assign(seconds=10.0 + 2.5 * runs.seed)
    assert "differ in the seed alone are up to 25 % apart" in high_dim.findings(runs)
    shown = plots.accuracy_shown(plots.accuracy_table(runs))
    assert set(shown["training time (s)"]) == {"11.2 (10.0 to 12.5)"}
    assert "in the seed alone" not in high_dim.findings(runs[runs.seed == 0])
    table = high_dim.time_to_accuracy(metrics, runs).set_index("variant")
    curve = metrics[metrics.variant == "cross_entropy"]
    goal = 0.5 * curve[curve.epoch == curve.epoch.max()].top1.mean()
    first = [own[own.top1 >= goal].seconds.min() for _, own in curve.groupby("seed")]
    told = f"{sum(first) / 2:.1f} ({min(first):.1f} to {max(first):.1f})"
    assert table.loc["cross-entropy", "seconds to 50%"] == told


def test_transfer_names_its_neighbours_and_memory_its_unit(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    runs = million_classes.with_methods(records.summaries("million_classes"))
    k = records.run_of("million_classes/cosine_100/seed_0").training.neighbours
    assert f"the accuracy of the {k} nearest neighbours among" in million_classes.protocol(runs)
    assert f"By the {k} nearest neighbours, images of" in million_classes.findings(runs)
    table = million_classes.overview(records.metrics("million_classes"), runs)
    assert set(table.k) == {k}
    assert list(table["peak memory (MiB)"]) == list(runs.peak_memory_mb)


def test_a_caveat_speaks_of_the_data_that_were_used(tmp_path: Path) -> None:
    records = opened(tmp_path, demo())
    digits, fractals = records.summaries("low_dim"), records.summaries("high_dim")
    assert "Digits" in caveat(digits)
    assert "Fractals" not in caveat(digits)
    assert "Digits" not in caveat(fractals, digits.iloc[:0])
    assert "natural images" in caveat(fractals, digits)
    assert "natural images" not in caveat(fractals, digits.assign(data="imagenet"))
    assert "one seed" not in caveat(digits)
    assert "one seed" in caveat(digits[digits.seed == 0])
    assert caveat(digits.iloc[:0], also="More.") == caveat(digits.assign(data="imagenet")) == ""
