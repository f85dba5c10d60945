"""The tests marked `apart` have a process of their own: autograd on another device than the CPU starts threads, and where these
run no forked process can train, as other tests want.
"""

import os
import subprocess
import sys

import pytest

from tests.conftest import APART, ROOT


@pytest.mark.slow
def test_those_that_need_a_process_of_their_own() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "-m",
        "apart",
        "tests/training",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {APART: "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
