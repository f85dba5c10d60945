"""``lsc predict``: the classes of images."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from lsc.cli.inputs import BatchSize, Device, Folder, FromFile, Inputs, Workers, lines_to, paths_from
from lsc.errors import UserError
from lsc.files import refuse_unwritable

if TYPE_CHECKING:
    from lsc.trained.classifier import Classifier, Embedded


def predict(
    folder: Folder,
    images: Inputs = None,
    listing: FromFile = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many classes for each image.")] = 1,
    form: Annotated[Literal["text", "jsonl", "csv"], typer.Option("--format", help="Of the lines.")] = "text",
    scores: Annotated[
        bool, typer.Option("--scores", help="A score after each class; jsonl and csv have them anyway.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="File for the lines, written whole; stdout by default.")] = None,
    unknown: Annotated[
        float | None,
        typer.Option(
            help="Call images unknown whose best score is too low; at most this share of the held-out images would be, e.g. 0.05."
        ),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Call an image unknown whose best score is below it.")] = None,
    vacant: Annotated[
        bool, typer.Option("--vacant", help="Call an image unknown whose nearest vector of the system has no class.")
    ] = False,
    device: Device = "cpu",
    batch_size: BatchSize = 256,
    workers: Workers = None,
) -> None:
    """The classes of images: a line per image with its name and the classes, best first, tab-separated.

    A score is the cosine of embedding and class center, or for a classification layer the probability by its softmax. A file that
    does not decode gets a line on stderr (in jsonl and csv an error beside its name), the others go on, and the exit code is 1.
    """
    if sum((unknown is not None, threshold is not None, vacant)) > 1:
        raise UserError("--unknown, --threshold, --vacant: give one of them")
    if out is not None:
        refuse_unwritable(out)
    paths = paths_from(images, listing)
    from tqdm import tqdm

    from lsc.trained.ranking import vacant as without_class
    from lsc.trained.trained import load
    from lsc.trained.unknown import check_rate, check_threshold

    if unknown is not None:
        check_rate(unknown)
    if threshold is not None:
        check_threshold(threshold)
    trained = load(folder, device=device)
    trained.check_pictures()
    if unknown is not None:
        known = trained.known_scores()
        threshold = known.threshold(unknown)
        print(
            f"lsc: unknown is a {trained.score} below {threshold:.4f}: so are at most {100 * unknown:g} % of images of known "
            f"classes, by the {len(known.scores):,} of {known.source}",
            file=sys.stderr,
        )
    faulty = 0
    bar = tqdm(total=len(paths), unit=" images", file=sys.stderr, disable=not sys.stderr.isatty())
    with bar, lines_to(out) as stream:
        write = _writer(stream, form, trained, min(k, len(trained.classes)), scores)
        for batch in trained.embed_files(paths, batch_size=batch_size, workers=workers):
            unknowns: list[bool] = []
            labels, values = (part.tolist() for part in trained.ranked(batch.embeddings, k))
            if vacant:
                unknowns = without_class(trained.task.objective, batch.embeddings.to(trained.device)).tolist()
            elif threshold is not None:
                unknowns = [not row[0] >= threshold for row in values]  # as "not a number" is, too
            _write_batch(write, batch, labels, values, unknowns)
            for fault in batch.faults.values():
                bar.write(f"lsc: {fault}", file=sys.stderr)
            faulty += len(batch.faults)
            stream.flush()
            bar.update(len(batch.paths))
    if faulty:
        print(f"lsc: {faulty:,} of {len(paths):,} files could not be read", file=sys.stderr)
        raise typer.Exit(1)


# path, labels, scores, whether it is unknown (None: nobody asked), what is wrong with it
Write = Callable[[Path, list[int], list[float], bool | None, str | None], Any]


def _write_batch(
    write: Write, batch: "Embedded", labels: list[list[int]], scores: list[list[float]], unknowns: list[bool]
) -> None:
    row = 0
    for place, path in enumerate(batch.paths):
        if place in batch.faults:
            write(path, [], [], None, batch.faults[place])
            continue
        write(path, labels[row], scores[row], unknowns[row] if unknowns else None, None)
        row += 1


def _writer(stream: TextIO, form: str, trained: "Classifier", k: int, with_scores: bool) -> Write:
    from lsc.trained.classifier import UNKNOWN

    classes = trained.classes
    table = csv.writer(stream, lineterminator="\n")
    if form == "csv":
        columns = [f"{what}_{rank}" for rank in range(1, k + 1) for what in ("class", trained.score)]
        table.writerow(["path", *columns, "error"])

    def write(path: Path, labels: list[int], scores: list[float], unknown: bool | None, fault: str | None) -> None:
        names = [UNKNOWN] if unknown else [classes[label] for label in labels]
        values = scores[: len(names)]
        pairs = [part for name, value in zip(names, values, strict=True) for part in (name, f"{value:.6f}")]
        if form == "jsonl":
            answer: dict[str, Any] = {"path": str(path)}
            if fault is None:
                answer |= {"classes": names, "scores": [round(value, 6) for value in values], "score": trained.score}
                answer |= {} if unknown is None else {"unknown": unknown}
            else:
                answer["error"] = fault
            stream.write(_as_json(answer) + "\n")
        elif form == "csv":
            table.writerow([str(path), *pairs, *[""] * (2 * k - len(pairs)), fault or ""])
        elif fault is None:
            stream.write("\t".join([_in_a_line(str(path)), *(pairs if with_scores else names)]) + "\n")

    return write


def _in_a_line(name: str) -> str:
    """A name without what would end a column or a line."""
    return name.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n") if {"\t", "\n"} & set(name) else name


def _as_json(answer: dict[str, Any]) -> str:
    text = json.dumps(answer, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(answer)
