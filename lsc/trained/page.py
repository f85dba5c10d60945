"""A page on how a training went, in one file that opens without internet: curve, worst classes, mistakes."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.io import encode_png

from lsc.data.base import Dataset
from lsc.errors import needing
from lsc.trained.planning import Plan
from lsc.trained.trained import Trained
from lsc.training import records
from lsc.training.outcome import final_split

CHANGES_NO_RESULT = True

PAGE = "page.html"
# Images that are predicted anew for the page; classes in the table; mistakes that are shown.
_IMAGES, _CLASSES, _MISTAKES = 5000, 12, 24

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-size: 0.85rem; } td, th { padding: 0.2rem 0.5rem; text-align: center; }
img { max-width: 100%; height: auto; } .wide { overflow-x: auto; } code { overflow-wrap: anywhere; }
.settings td { text-align: left; vertical-align: top; border-top: 1px solid #ddd; } .settings td:first-child { width: 45%; }
th { font-weight: 600; } figure { display: inline-block; margin: 0.4rem; text-align: center; font-size: 0.8rem; }
figure img { width: 96px; height: 96px; image-rendering: pixelated; } .note { color: #666; font-size: 0.85rem; }
"""


@dataclass(frozen=True)
class Judged:
    """Predictions on the split that the run is judged by."""

    split: str
    indexes: Tensor  # (N,) int64 positions in the split
    labels: Tensor  # (N,) int64
    predicted: Tensor  # (N,) int64

    @property
    def wrong(self) -> Tensor:
        return (self.labels != self.predicted).nonzero().flatten()


@torch.no_grad()
def judged(trained: Trained, dataset: Dataset) -> Judged:
    """Predict the images that the run is judged by, evenly spaced ones if they are very many."""
    split = final_split(dataset)
    size = dataset.size(split)
    indexes = torch.linspace(0, size - 1, min(size, _IMAGES)).round().long()
    device = next(trained.task.parameters()).device
    found = [
        trained.predict(dataset.images(split, part).to(device))[:, 0] for part in torch.split(indexes, 256)
    ]  # fmt: skip
    return Judged(split, indexes, dataset.labels(split)[indexes], torch.cat(found))


def worst_classes(found: Judged, num_classes: int) -> list[int]:
    """The classes of which most is missed, worst first, with those that they are taken for; none that is always right."""
    total = torch.bincount(found.labels, minlength=num_classes)
    missed = torch.bincount(found.labels[found.wrong], minlength=num_classes)
    share = missed / total.clamp(min=1)
    chosen: list[int] = []
    for label in share.argsort(descending=True, stable=True).tolist():
        if not missed[label] or len(chosen) >= _CLASSES:
            break
        taken_for = found.predicted[found.wrong][found.labels[found.wrong] == label].mode().values.item()
        chosen += [name for name in (label, int(taken_for)) if name not in chosen]
    return chosen[:_CLASSES]


def write_page(trained: Trained, dataset: Dataset, planned: Plan | None = None) -> Path:
    """Write ``page.html`` into a finished run's folder.

    Args:
        dataset: that it was trained on.
        planned: what was found and chosen, and why, to stand at the end.

    Raises:
        UserError: matplotlib is missing.
    """
    found = judged(trained, dataset)
    summary, rows = trained.summary, records.read_rows(trained.folder / records.METRICS)
    name = html.escape(trained.run.variant)
    parts = [
        f"<h1>{name}</h1>",
        f"<p><b>{summary['final_top1']:.1%}</b> of {dataset.size(found.split):,} images of the split {found.split} are "
        f"classified right, among {dataset.num_classes:,} classes; trained on {dataset.size('train'):,} images in "
        f"{summary['seconds']:.0f} s.</p>",
    ]
    if len(rows) > 1:
        parts += ["<h2>Learning curve</h2>", f'<img alt="accuracy and loss" src="{curve(rows, summary)}">']
    parts += ["<h2>Classes that are confused most</h2>", _table(found, trained.classes)]
    parts += ["<h2>Mistakes</h2>", _mistakes(found, dataset, trained.classes)]
    if planned is not None:
        parts += ["<h2>Settings</h2>", _settings(planned)]
    version = summary["versions"]["lsc"]
    parts.append(f'<p class="note">lsc {version}, {summary["finished"]}. All settings: {records.CONFIG}.</p>')
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style></head>'
    path = trained.folder / PAGE
    records.write_text(path, f"{head}<body>{''.join(parts)}</body></html>\n")
    return path


def curve(rows: Sequence[dict[str, Any]], summary: dict[str, Any]) -> str:
    """Accuracy and loss against the epoch, as an image within the page."""
    with needing("plots", "the page of a training"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    scored = [row for row in rows if "top1" in row]
    accuracies = [100 * row["top1"] for row in scored]
    axes[0].plot([row["epoch"] for row in scored], accuracies, marker=".", color="#0072B2")
    axes[0].set(xlabel="epoch", ylabel=f"accuracy on {summary['scored_on']} (%)", ylim=(0, 102))
    lost = [row for row in rows if "train_loss" in row]
    axes[1].plot([row["epoch"] for row in lost], [row["train_loss"] for row in lost], color="#D55E00")
    axes[1].set(xlabel="epoch", ylabel="training loss")
    for part in axes:
        part.xaxis.set_major_locator(MaxNLocator(integer=True))
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return _inlined(content.getvalue())


def _table(found: Judged, classes: Sequence[str]) -> str:
    chosen = worst_classes(found, len(classes))
    if not chosen:
        return "<p>None: every image is classified right.</p>"
    place = {label: number for number, label in enumerate(chosen)}
    head = "".join(f"<th>{html.escape(classes[label])}</th>" for label in chosen)
    lines = [f"<tr><th>is \\ taken for</th>{head}<th>others</th></tr>"]
    for label in chosen:
        predicted = found.predicted[found.labels == label].tolist()
        counts = [0] * (len(chosen) + 1)
        for other in predicted:
            counts[place.get(other, len(chosen))] += 1
        cells = []
        for number, count in enumerate(counts):
            color = "0,114,178" if number == place[label] else "213,94,0"
            shade = count / max(1, len(predicted))
            cells.append(f'<td style="background:rgba({color},{shade:.2f})">{count or ""}</td>')
        lines.append(f"<tr><th>{html.escape(classes[label])}</th>{''.join(cells)}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _mistakes(found: Judged, dataset: Dataset, classes: Sequence[str]) -> str:
    wrong = found.wrong
    if not len(wrong):
        return "<p>None.</p>"
    shown = wrong[torch.linspace(0, len(wrong) - 1, min(len(wrong), _MISTAKES)).round().long()]
    pictures = dataset.images(found.split, found.indexes[shown])
    figures = []
    for place, picture in zip(shown.tolist(), pictures, strict=True):
        names = [html.escape(classes[int(labels[place])]) for labels in (found.labels, found.predicted)]
        source = _inlined(bytes(encode_png(picture).tolist()))
        figures.append(
            f'<figure><img alt="" src="{source}"><figcaption>{names[0]}<br>taken for {names[1]}</figcaption></figure>'
        )
    return f"<p>{len(shown)} of {len(wrong)}.</p>{''.join(figures)}"


def _settings(planned: Plan) -> str:
    """What was found among the images, and a table of what was chosen for them, and why."""
    rows = [
        f"<tr><td><code>{html.escape(str(choice))}</code></td><td>{html.escape(choice.why)}</td></tr>"
        for choice in planned.choices
    ]
    return f'<p>{html.escape(str(planned.images))}</p><table class="settings">{"".join(rows)}</table>'


def _inlined(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
