"""A file is written whole or not at all, whatever ends the writing."""

import errno

import pytest

from fastpose.errors import OutputError
from fastpose.files import write_atomic, write_text


def half_written(error):
    def write(temporary):
        temporary.write_text("half")
        raise error

    return write


def test_a_file_is_replaced_and_nothing_else_stays(tmp_path):
    write_text(tmp_path / "a.txt", "one")
    write_text(tmp_path / "a.txt", "two")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "two")]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        pytest.param(OSError(errno.ENOSPC, "No space left on device"), OutputError, id="full"),
        pytest.param(ValueError("not serialisable"), ValueError, id="content"),
        pytest.param(KeyboardInterrupt(), KeyboardInterrupt, id="interrupted"),
    ],
)
@pytest.mark.parametrize("before", [None, "old"], ids=["new", "old"])
def test_what_fails_leaves_the_old_file_and_no_temporary(tmp_path, error, raised, before):
    path = tmp_path / "a.txt"
    if before:
        path.write_text(before)
    with pytest.raises(raised) as caught:
        write_atomic(path, half_written(error))
    assert caught.value is error or caught.value.__cause__ is error
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == (
        {"a.txt": before} if before else {}
    )


def test_an_error_of_the_disk_names_the_file(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written: No space left on device"):
        write_atomic(path, half_written(OSError(errno.ENOSPC, "No space left on device")))
