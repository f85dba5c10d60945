"""``lsc centers``: what a system of centers is like, before training on it."""

from typing import Annotated

import typer


def centers(
    classes: Annotated[int, typer.Option(help="Number of classes.", min=1)],
    system: Annotated[
        str,
        typer.Option(
            help="A, A_intrinsic, V21, V22 or another V<ones><minus-ones>, simplex, orthoplex, one_hot, gaussian or polygon; not "
            "codes, whose centers depend on the training."
        ),
    ] = "A",
    dim: Annotated[int | None, typer.Option(help="Dimension; the least that holds the classes if not given.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Print the systems side by side.")] = False,
) -> None:
    """Show dimension, capacity, largest cosine and memory of the centers of so many classes."""
    from lsc.errors import UserError, needing

    with needing("plots", "lsc centers"):
        from lsc.study import analysis

    if compare:
        if dim is not None:
            raise UserError("--compare shows every system in its own least dimension: leave out --dim")
        table = analysis.least_dimension_table([classes])
        table["capacity"] = table["capacity"].map("{:,}".format)
        table["used"] = table["used"].map("{:.2%}".format)
        table["max_cosine"] = table["max_cosine"].map("{:.4f}".format)
        table["min_angle"] = table["min_angle"].map("{:.2f}".format)
        table["as indexes"] = table.pop("index_bytes").map(_bytes)
        table["as a matrix"] = table.pop("dense_bytes").map(_bytes)
        typer.echo(table.drop(columns="classes").to_string(index=False))
        return
    if dim is None and system in ("simplex", "orthoplex", "one_hot"):
        dimension, capacity, cosine = analysis.least_dimension(system, classes)
    else:
        from lsc.systems import parse_system

        parsed = parse_system(system, dim, classes)
        dimension, capacity, cosine = parsed.dim, parsed.capacity, parsed.max_cosine
    rows = {
        "system": system,
        "classes": f"{classes:,}",
        "dimension": f"{dimension:,}",
        "capacity": f"{capacity:,} vectors, {classes / capacity:.2%} used",
        "largest cosine": f"{cosine:.4f} ({analysis.degrees(cosine):.2f} degrees)",
        "as indexes": f"{_bytes(analysis.INDEX_BYTES * classes)} (none at all if ordered or shuffled)",
        "as a matrix": _bytes(analysis.FLOAT_BYTES * classes * dimension),
    }
    for name, value in rows.items():
        typer.echo(f"{name:<15} {value}")


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}" if size < 1000 else f"{size:,.0f} {unit}"
