"""Write the pages of the library's modules, classes and functions into a folder, site/api by default. A warning is an error."""

import importlib
import pkgutil
import sys
from pathlib import Path

import pdoc

import lsc

# The front door imports a name when it is asked for, and pdoc documents what is there.
for name in lsc.__all__:
    setattr(lsc, name, getattr(lsc, name))

# Where a room lists its names, pdoc would leave its files out.
rooms = [found.name for found in pkgutil.walk_packages(lsc.__path__, "lsc.") if found.ispkg]
for room in [lsc, *map(importlib.import_module, rooms)]:
    if hasattr(room, "__all__"):
        files = (found.name for found in pkgutil.iter_modules(room.__path__))
        room.__all__ = [*room.__all__, *(name for name in files if not name.startswith("_"))]

pdoc.render.configure(docformat="google", math=True)
pdoc.pdoc("lsc", output_directory=Path(sys.argv[1] if len(sys.argv) > 1 else "site/api"))
