"""From checked options to an open data set."""

from lsc.data.base import Dataset
from lsc.data.options import Cinic10Options, DatasetOptions, DigitsOptions, FractalsOptions, InstancesOptions


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
    if isinstance(options, InstancesOptions):
        from lsc.data.instances import Instances

        return Instances(construct(options.of), options)
    from lsc.data.image_folder import open_image_folder

    return open_image_folder(options)
