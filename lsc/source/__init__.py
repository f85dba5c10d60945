"""The library's own source text: which modules a computation uses, and a digest of what they compute.

``computing`` reduces a module to what can change a number; ``closure`` follows its imports.

A module, or a class, that assigns ``CHANGES_NO_RESULT = True`` says of itself that no number depends on it, and is left out.
"""

from lsc.source.closure import digest_of

CHANGES_NO_RESULT = True

__all__ = ["digest_of"]
