"""Data sets, from ten digits to a million classes, behind one interface: ``open_dataset("digits")``. One file each.

A set's options stand beside its code and are read from there. A set of your own is one file and one line:
CONTRIBUTING.md shows it. Importing this package does not import torch; a set is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from lsc.data.options import DatasetOptions
from lsc.data.registry import DATASETS
from lsc.errors import UserError
from lsc.settings import block_model, validated

if TYPE_CHECKING:
    from lsc.data.base import Dataset

__all__ = ["DATASETS", "DatasetOptions", "open_dataset", "parse_options"]


def parse_options(name: str, **options: Any) -> DatasetOptions:
    """The checked options of the set ``name``.

    Raises:
        UserError: the set is unknown, or an option is unknown or has a wrong value; it names the option.
    """
    model = block_model(DATASETS, name)
    try:
        checked = validated(model, {"name": name, **options})
    except UserError as error:
        known = [field for field in model.model_fields if field != "name"]
        remedy = f" (options of {name}: {', '.join(known)})" if "unknown key" in str(error) else ""
        raise UserError(f"data set {name}, option {error}{remedy}") from None
    assert isinstance(checked, DatasetOptions)
    return checked


def open_dataset(name: "str | DatasetOptions", **options: Any) -> "Dataset":
    """Open a data set by name and options, or by its checked options alone.

    Args:
        name: one of ``DATASETS``, or a set's options.
        options: as the set describes them; folders are relative to the current one.

    Raises:
        UserError: unknown set or option, or files that are missing or broken.
    """
    return (parse_options(name, **options) if isinstance(name, str) else name).open()
