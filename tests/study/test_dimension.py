"""Accuracy against the latent dimension: lines by system and method, the dimension that is enough, epochs to an accuracy."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lsc.study.chapters import dimension

_ACCURACY = {
    ("cosine", False): {8: 0.2, 64: 0.6, 256: 0.7},
    ("cosine", True): {8: 0.3, 64: 0.8, 256: 0.805},
    ("cross_entropy", False): {8: 0.5, 64: 0.7, 256: 0.72},
}


def runs_and_curves() -> tuple[pd.DataFrame, pd.DataFrame]:
    runs, rows = [], []
    for (objective, solved), values in _ACCURACY.items():
        for dim, top1 in values.items():
            variant, centers = f"{objective}_{dim}_{solved}", objective == "cosine"
            runs.append(
                {
                    "variant": variant, "seed": 0, "label": objective.replace("_", "-"), "color": "#123456", "system": "V22",
                    "has_centers": centers, "role": "paper" if centers else "baseline", "dim": dim, "num_classes": 300,
                    "final_top1": top1, "changes": {"readout.every": "20 steps"} if solved else {},
                }
            )  # fmt: skip
            rows += [{"variant": variant, "seed": 0, "epoch": epoch, "top1": top1 * epoch / 4} for epoch in range(1, 5)]
    return dimension.with_lines(pd.DataFrame(runs)), pd.DataFrame(rows)


def test_a_line_is_a_system_and_a_method() -> None:
    runs, curves = runs_and_curves()
    assert list(dict.fromkeys(runs.line)) == ["V22, by steps", "V22, closed form", "cross-entropy"]
    figure = dimension.draw(curves, runs)
    left, right = figure.axes
    drawn = {str(line.get_label()): dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in left.lines}
    assert drawn["V22, closed form"] == pytest.approx({8: 30, 64: 80, 256: 80.5})
    # Nine tenths of cross-entropy's 72 % are reached in the fourth epoch of those that end with 70 or 80 %, or never.
    epochs = [dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in right.lines]
    assert epochs == [{256: 4}, {64: 4, 256: 4}, {64: 4, 256: 4}]
    plt.close(figure)


def test_a_goal_that_one_seed_never_reaches_is_drawn_for_none() -> None:
    runs, curves = runs_and_curves()
    late = curves.assign(seed=1, top1=curves.top1.where(curves.variant != "cosine_64_True", 0.1))
    both = pd.concat([runs, runs.assign(seed=1)], ignore_index=True)
    figure = dimension.draw(pd.concat([curves, late]), both)
    epochs = [dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in figure.axes[1].lines]
    assert epochs == [{256: 4}, {256: 4}, {64: 4, 256: 4}]
    plt.close(figure)


def test_a_last_layer_that_is_refitted_at_the_end_was_trained_by_steps() -> None:
    runs, _ = runs_and_curves()
    refitted = runs.assign(changes=[{"readout.sums": None} if changes else {} for changes in runs.changes])
    assert list(dict.fromkeys(dimension.with_lines(refitted).line)) == ["V22, by steps", "cross-entropy"]


def test_the_table_has_the_same_numbers() -> None:
    table = dimension.table(runs_and_curves()[0])
    assert table.dimension.tolist() == [8, 64, 256]
    assert table["cross-entropy"].tolist() == [50.0, 70.0, 72.0]


def test_the_sentence_names_the_dimensions_that_are_enough() -> None:
    said = dimension.findings(runs_and_curves()[0])
    assert "V22, closed form 30.0 % in 8 dimensions and 80.5 % in 256" in said
    enough = (
        "among 300 classes with the last layer in closed form from 64 dimensions on; trained by steps somewhere between 64 "
        "and 256, the most that was tried."
    )
    assert enough in said
    assert enough in dimension.in_short(runs_and_curves()[0])
    assert dimension.findings(pd.DataFrame()) == dimension.in_short(pd.DataFrame()) == ""


def test_what_still_rises_is_told_apart_from_what_levels_off() -> None:
    runs, _ = runs_and_curves()
    other = runs[runs.solved].assign(system="A", line="A, closed form", final_top1=runs.dim / 300)
    said = dimension.in_short(pd.concat([runs, other]))
    assert (
        "closed form from 64 dimensions on, and somewhere between 64 and 256, the most that was tried (A); trained"
        in said
    )
    assert dimension.in_short(runs[runs.dim == 64]) == ""  # one dimension says nothing of others


def test_the_goal_is_of_the_images_that_the_curves_are_of() -> None:
    """Where the runs end on images on which all are better than on those that scored them."""
    runs, curves = runs_and_curves()
    runs = runs.assign(scored_on="valid", final_on="test", final_top1=1.2 * runs.final_top1)
    figure = dimension.draw(curves, runs)
    left, right = figure.axes
    epochs = [dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in right.lines]
    assert epochs == [{256: 4}, {64: 4, 256: 4}, {64: 4, 256: 4}]
    assert right.get_title("left") + right.get_title() == "Epochs to 65 % validation accuracy"
    assert left.get_ylabel() == "test accuracy (%)"
    plt.close(figure)


def test_a_mean_of_several_seeds_is_shown_with_their_range() -> None:
    runs, _ = runs_and_curves()
    both = pd.concat([runs, runs.assign(seed=1, final_top1=runs.final_top1 - 0.1)])
    assert dimension.table_shown(both)["cross-entropy"].tolist()[0] == "45.0 (40.0 to 50.0)"
    assert dimension.table_shown(runs)["cross-entropy"].tolist()[0] == "50.0"
