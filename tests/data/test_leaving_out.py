"""Lists of images to leave out: whatever the names, what is written is what is read."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lsc.data.leaving_out import read_left_out, write_left_out
from lsc.errors import UserError

ROOT = Path("/somewhere/else")
# What ends lines or columns, begins remarks, or is taken for one of these.
LETTERS = st.sampled_from("#\\tnr \t\n\r\x0b\x0c\x1c\x85\u2028\u2029\ufeffa/é字")


@settings(max_examples=300, deadline=None)
@given(names=st.lists(st.text(LETTERS | st.characters(codec="utf-8"), min_size=1), unique=True))
@example(
    names=[
        "#1/a.png",
        " cat/b.png",
        "d/x\ty.png",
        "e/x\ny.png",
        "# f/z.png",
        "#",
        "g\\t.png",
        "h\u2028\x85.png",
        "i.png ",
    ]
)
def test_a_list_is_read_as_it_was_written(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("list") / "broken.txt"
    write_left_out(path, [(name, f"{name} does not decode\nfor a reason") for name in names])
    assert len(path.read_bytes().splitlines()) >= len(names) + 1
    assert path.read_text(encoding="utf-8").count("\n") == len(names) + 1
    assert read_left_out(path, ROOT).names == tuple(name.removeprefix(f"{ROOT}/") for name in names)


def test_lists_of_people_and_of_older_versions_have_no_escapes(tmp_path: Path) -> None:
    path = tmp_path / "broken.txt"
    path.write_bytes(
        "\ufeff# images to leave out, a path a line\n#\n# by hand\r\n"
        "a\\t.png\tdoes not decode\nb/\\\\x.png\r\n#1/c.png\n d/e.png \n/somewhere/else/f.png\n\n".encode()
    )
    assert read_left_out(path, ROOT).names == ("a\\t.png", "b/\\\\x.png", "d/e.png", "f.png")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_left_out(path, ROOT)
