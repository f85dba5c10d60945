"""A finished run in use: load it, embed and classify with it; and the way from one's own Python to a finished run."""

from lsc.trained.fitting import fit
from lsc.trained.trained import Trained, load

__all__ = ["Trained", "fit", "load"]
