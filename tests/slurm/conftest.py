"""These tests need SLURM's programs, but no cluster: they start one of their own."""

from pathlib import Path

import pytest

from tests.slurm.cluster import missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = missing()
    for item in items:
        if lacking and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=f"no {', '.join(lacking)}: apt-get install slurm-wlm munge"))
