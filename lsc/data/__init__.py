"""Data sets, from ten digits to a million classes, behind one interface: ``open_dataset("digits")``.

Importing this package does not import torch; the sets themselves are imported when one is opened.
"""

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from lsc.data.options import DATASETS, DatasetOptions
from lsc.errors import UserError

if TYPE_CHECKING:
    from lsc.data.base import Dataset

__all__ = ["DATASETS", "open_dataset", "parse_options"]


def parse_options(name: str, **options: Any) -> DatasetOptions:
    """The checked options of the set ``name``.

    Raises:
        UserError: the set is unknown, or an option is unknown or has a wrong value; it names the option.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}")
    try:
        return TypeAdapter(DATASETS[name]).validate_python({"name": name, **options})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or name
        known = [field for field in DATASETS[name].model_fields if field != "name"]
        remedy = f" (options of {name}: {', '.join(known)})" if first["type"] == "extra_forbidden" else ""
        raise UserError(f"data set {name}, option {key}: {first['msg']}{remedy}") from None


def open_dataset(name: "str | DatasetOptions", **options: Any) -> "Dataset":
    """Open a data set by name and options, or by its checked options alone.

    Args:
        name: one of ``DATASETS``, or an options model of ``lsc.data.options``.
        options: as described in ``lsc.data.options``; folders are relative to the current one.

    Raises:
        UserError: unknown set or option, or files that are missing or broken.
    """
    checked = parse_options(name, **options) if isinstance(name, str) else name
    from lsc.data.registry import construct

    return construct(checked)
