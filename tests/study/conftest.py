"""What the tests of chapters share."""

from collections.abc import Iterator

import matplotlib as mpl
import pytest


@pytest.fixture(autouse=True)
def style_of_its_own() -> Iterator[None]:
    """A chapter sets matplotlib's style for its whole process: not for the tests that follow."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.use("Agg")
        yield
