"""The command as tests of data sets call it."""

import sys

import pytest

from lsc.cli import main


@pytest.fixture
def lsc(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Lsc":
    return Lsc(monkeypatch, capsys)


class Lsc:
    """Runs the command in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *words: object, code: int = 0) -> str:
        """What the command prints: on stdout, or on stderr where it is to fail."""
        self._monkeypatch.setattr(sys, "argv", ["lsc", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        output = self._capsys.readouterr()
        assert stopped.value.code == code, output.err
        if code:
            assert output.err.startswith("lsc: error: ")
            assert output.err.count("\n") == 1
        return output.err if code else output.out
