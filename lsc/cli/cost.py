"""``lsc cost``: measure what things cost on this machine."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from lsc.cost.data import data

app = typer.Typer(no_args_is_help=True, help="Measure what things cost on this machine.")

app.command()(data)

Record = dict[str, Any]
Output = Annotated[
    Path | None, typer.Option("--output", "--out", help="Write the records to this file, as JSON lines.")
]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Repetitions = Annotated[int, typer.Option(help="How often everything is measured.", min=1)]


@app.command()
def step(
    study: Annotated[
        Path | None, typer.Option(help="Take the settings of this study's cost.step; without: of the demo's size.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Numbers of classes instead of the study's, separated by commas.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images in a batch instead of the study's.", min=1)] = None,
    repetitions: Annotated[int | None, typer.Option(help="How often everything is measured.", min=1)] = None,
    rivals: Annotated[
        str | None, typer.Option(help="Of cross_entropy, partial_fc, arcface and proxy_nca, or none.")
    ] = None,
    memory_gb: Annotated[float | None, typer.Option(help="Predict what is expected to need more memory.")] = None,
    digest: Annotated[
        str | None, typer.Option(help="Digest of the study's settings that are meant; refuse to measure others.")
    ] = None,
    device: Device = "cpu",
    output: Output = None,
) -> None:
    """A training step against the number of classes: predefined centers, the usual layers, and the bare encoder."""
    from lsc.cost.step import step_records
    from lsc.errors import UserError
    from lsc.settings import digest as digest_of_block
    from lsc.study.configuration import read_study
    from lsc.study.measurements import CostOptions, StepCost

    block = (read_study(study).cost if study else CostOptions()).step
    if digest is not None and digest != digest_of_block(block):
        raise UserError(
            f"--digest {digest}: cost.step of {study or 'the demo'} has other settings ({digest_of_block(block)}) than those "
            "that were planned; start the workflow again"
        )
    settings = block.model_dump()
    given = {
        "class_counts": None if classes is None else [int(count) for count in _numbers(classes)],
        "batch": batch,
        "repetitions": repetitions,
        "rivals": None if rivals is None else [name for name in rivals.split(",") if name not in ("", "none")],
        "memory_gb": memory_gb,
    }
    try:
        options = StepCost.model_validate(settings | {key: value for key, value in given.items() if value is not None})
    except ValueError as error:
        raise UserError(f"lsc cost step: {str(error).splitlines()[2].strip()}; see lsc cost step --help") from None

    def line(record: Record) -> str:
        seconds = f"{1e3 * record['step_seconds']:9.2f} ms" if record["step_seconds"] else "    unknown"
        how = f"predicted, for want of {record['reason']}" if record["predicted"] else f"{record['ratio_to_bare']:.3f}"
        return (
            f"{record['objective']:<14} {record['classes']:>13,} classes: {seconds} (to bare: {how}), "
            f"{record['peak_bytes'] / 1e6:9.2f} MB"
        )

    _report(step_records(options, device), line, output)


@app.command()
def decode(
    cases: Annotated[
        str | None,
        typer.Option(
            help="Of full, half, thirtieth, perturbed and perturbed_30, separated by commas.",
            show_default="full,half,perturbed; with --all every one",
        ),
    ] = None,
    system: Annotated[str, typer.Option(help="A, V21, V22 or another V<ones><minus-ones>.")] = "A",
    classes: Annotated[int, typer.Option(help="Number of classes.", min=2)] = 1_281_167,
    cosines: Annotated[str, typer.Option(help="Cosines of embeddings to their centers.")] = "0.9,0.7",
    batch: Annotated[int, typer.Option(help="Embeddings at a time.", min=1)] = 256,
    top: Annotated[str, typer.Option(help="How many classes are asked for; several numbers, one after another.")] = "1",
    repetitions: Repetitions = 3,
    faiss: Annotated[bool, typer.Option(help="Measure faiss, too.")] = True,
    dense: Annotated[bool, typer.Option(help="Measure the rivals, which need the matrix of all centers.")] = True,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Against the whole field: faiss flat, HNSW and IVF, scikit-learn and a matrix product; of the options "
            "above --cases and --repetitions count, and six of these give an interval of 95 %.",
        ),
    ] = False,
    sizes: Annotated[str, typer.Option(help="With --all: numbers of classes.")] = "1e4,1e5,1281167",
    systems: Annotated[str, typer.Option(help="With --all: vector systems.")] = "A,V22",
    index_up_to: Annotated[
        int, typer.Option(help="With --all: most classes for which HNSW and IVF are built, which takes minutes.", min=0)
    ] = 100_000,
    rivals: Annotated[
        str, typer.Option(help="With --all: of matmul, faiss_flat, sklearn, hnsw and ivf, separated by commas.")
    ] = "matmul,faiss_flat,sklearn,hnsw,ivf",
    keep: Annotated[
        float | None,
        typer.Option(
            help="With --all: bytes of the matrix of all centers up to which the search keeps it.",
            min=0,
            show_default="512 MB",
        ),
    ] = None,
    device: Device = "cpu",
    output: Output = None,
) -> None:
    """Nearest class by exact search, against a chunked matrix product and faiss."""
    from lsc.cost.decode import CASES, decode_records

    usual = CASES if everything else ("full", "half", "perturbed")
    chosen = usual if cases is None else tuple(cases.split(","))
    if everything:
        from lsc.cost.field import Grid, field_records, verdict
        from lsc.cost.field import line as of_field

        grid = Grid(
            systems=tuple(systems.split(",")),
            cases=chosen,
            sizes=tuple(int(size) for size in _numbers(sizes)),
            repetitions=repetitions,
            index_up_to=index_up_to,
            rivals=tuple(rivals.split(",")),
            keep=keep,
        )
        typer.echo(verdict(_report(field_records(grid), of_field, output)))
        return

    def line(record: Record) -> str:
        rivals = [
            f"{name} {record[f'{name}_seconds']:.2f} s, {record[f'{name}_ratio']:,.0f} times"
            for name in ("matmul", "faiss")
            if f"{name}_ratio" in record
        ]
        found = f"{1e3 * record['seconds']:.2f} ms, {record['looked_at']:.0f} vectors looked at"
        return f"{record['case']:<10} cosine {record['cosine']:.2f}, top-{record['k']}: " + "; ".join([found, *rivals])

    answers = [int(count) for count in _numbers(top)]
    measured = decode_records(
        chosen, system, classes, _numbers(cosines), batch, answers, repetitions, faiss, dense, device
    )
    _report(measured, line, output)


@app.command()
def hnsw(
    system: Annotated[str, typer.Option(help="A, V21, V22 or another V<ones><minus-ones>.")] = "A",
    classes: Annotated[int, typer.Option(help="Number of classes; the index takes a while.", min=2)] = 20_000,
    cosine: Annotated[float, typer.Option(help="Cosine of embeddings to their centers.")] = 0.9,
    batch: Annotated[int, typer.Option(help="Embeddings at a time.", min=1)] = 256,
    k: Annotated[int, typer.Option(help="How many classes are asked for.", min=1)] = 1,
    repetitions: Repetitions = 3,
    output: Output = None,
) -> None:
    """Nearest class through faiss's approximate index HNSW: time to build, time to search, recall."""
    from lsc.cost.hnsw import hnsw_records

    def line(record: Record) -> str:
        return (
            f"{record['classes']:,} classes, breadth {record['breadth']}: built in {record['build_seconds']:.1f} s, "
            f"{1e3 * record['hnsw_seconds']:.2f} ms ({record['hnsw_ratio']:.2f} of the exact search), "
            f"recall {record['recall']:.3f}"
        )

    _report(hnsw_records(system, classes, cosine, batch, k, repetitions), line, output)


@app.command()
def loss(
    system: Annotated[str, typer.Option(help="A, V21, V22 or another V<ones><minus-ones>.")] = "V22",
    dim: Annotated[int, typer.Option(help="Dimension, the same for all numbers of classes.", min=1)] = 384,
    classes: Annotated[str, typer.Option(help="Numbers of classes, separated by commas.")] = "1e4,1e5,1e6,1e9",
    batch: Annotated[int, typer.Option(help="Embeddings at a time.", min=1)] = 256,
    repetitions: Repetitions = 5,
    dense_up_to: Annotated[int, typer.Option(help="Most classes for which a dense softmax is measured.")] = 100_000,
    device: Device = "cpu",
    output: Output = None,
) -> None:
    """Time and memory of the losses' forward and backward steps, and of a dense softmax."""
    from lsc.cost.loss import loss_records

    def line(record: Record) -> str:
        return (
            f"{record['objective']:<14} {record['classes']:>13,} classes: "
            f"{1e3 * record['seconds']:9.2f} ms (ratio {record['time_ratio']:.3f}), "
            f"{record['peak_bytes'] / 1e6:9.2f} MB (ratio {record['memory_ratio']:.3f})"
        )

    counts = [int(count) for count in _numbers(classes)]
    _report(loss_records(system, dim, counts, batch, repetitions, dense_up_to, device), line, output)


@app.command()
def loop(
    study: Annotated[Path, typer.Option(help="Study file, e.g. config/demo.yaml.")],
    run: Annotated[str, typer.Option(help="Run of the study: experiment/variant/seed_n.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of each side in a repetition.")] = 100,
    repetitions: Repetitions = 5,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    output: Output = None,
) -> None:
    """Images per second of a run's training loop, against the bare steps of its network on one batch."""
    from lsc.cost.loop import loop_records, summary
    from lsc.study.configuration import read_study

    def line(record: Record) -> str:
        return f"ratio {record['ratio']:.3f}"

    measured = _report(loop_records(read_study(study).run_of(run), steps, repetitions, device), line, output)
    typer.echo(summary(measured))


@app.command()
def workflow(
    study: Annotated[Path | None, typer.Option(help="Study file; the Snakefile's own, the demo, if not given.")] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole", help="Also time the study as a whole, from nothing: without results and without work/."
        ),
    ] = False,
    figure: Annotated[str, typer.Option(help="Figure to draw again, without ending.")] = "low_dim_accuracy",
    cores: Annotated[str, typer.Option(help="As snakemake takes it.")] = "all",
    repetitions: Repetitions = 5,
    output: Output = None,
) -> None:
    """Seconds of the workflow itself: nothing to do, one figure again, the start of a job, the study as a whole.

    With --output results/STUDY/cost/workflow.jsonl chapter 7 shows them when it is rendered next.
    """
    from lsc.cost.workflow import workflow_records

    def line(record: Record) -> str:
        return f"{record['what']:<8} {record['seconds']:8.2f} s  {record.get('experiment', '')}"

    _report(workflow_records(study, figure, whole, repetitions, cores), line, output)


def _report(measured: Iterable[Record], line: Callable[[Record], str], output: Path | None) -> list[Record]:
    """Print a line for each record as it comes, and write to ``output`` in the end what there is."""
    from lsc.files import refuse_unwritable
    from lsc.training.records import write_rows

    if output is not None:
        refuse_unwritable(output, "--output")  # before the measurements, which would be lost
    kept: list[Record] = []
    try:
        for record in measured:
            kept.append(record)
            typer.echo(line(record))
    finally:  # what was measured before a mistake or an interruption is not lost
        if output is not None and kept:
            write_rows(output, kept)
    return kept


def _numbers(text: str) -> list[float]:
    from lsc.errors import UserError

    try:
        numbers = [float(part) for part in text.split(",")]
        if not all(0 < number < 2**63 for number in numbers):
            raise ValueError
        return numbers
    except ValueError:
        raise UserError(f"{text!r} is not a list of positive numbers separated by commas, such as 0.9,0.7") from None
