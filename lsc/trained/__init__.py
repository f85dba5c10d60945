"""A finished run in use: load it, embed and classify with it; and the way from one's own Python to a finished run."""

from lsc.trained.estimator import CenterClassifier
from lsc.trained.fitting import fit
from lsc.trained.trained import Trained, load

__all__ = ["CenterClassifier", "Trained", "fit", "load"]
