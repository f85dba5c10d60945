"""From checked options to an open data set."""

from lsc.data.base import Dataset
from lsc.data.options import Cinic10Options, DatasetOptions, DigitsOptions, FractalsOptions
from lsc.errors import UserError


def construct(options: DatasetOptions) -> Dataset:
    """Open the set that ``options`` describe; a set's own module is imported only when it is asked for."""
    if isinstance(options, DigitsOptions):
        from lsc.data.digits import open_digits

        return open_digits(options)
    if isinstance(options, FractalsOptions):
        from lsc.data.fractals import Fractals

        return Fractals(options)
    if isinstance(options, Cinic10Options):
        from lsc.data.cinic10 import open_cinic10

        return open_cinic10(options)
    raise UserError(f"data set {options.name} cannot be opened")
