"""Latent space configuration: train image encoders on any number of classes with predefined class centers."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lsc")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
