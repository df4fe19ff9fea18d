"""Files, folders and globs become a sorted list of pictures, or an error that says why not."""

import pytest

from fastpose.errors import ImageError
from fastpose.infer.sources import find_images


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "below/c.jpeg", "empty/readme.md", "x[1].jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        pytest.param(["b.jpg"], ["b.jpg"], id="file"),
        pytest.param(["a.PNG"], ["a.PNG"], id="capital-extension"),
        pytest.param([""], ["a.PNG", "b.jpg", "x[1].jpg"], id="folder"),
        pytest.param(["*.jpg"], ["b.jpg", "x[1].jpg"], id="glob"),
        pytest.param(["*"], ["a.PNG", "b.jpg", "x[1].jpg"], id="glob-over-everything"),
        pytest.param(["**/*.jp*g"], ["b.jpg", "below/c.jpeg", "x[1].jpg"], id="glob-below"),
        pytest.param(["x[1].jpg"], ["x[1].jpg"], id="name-that-looks-like-a-glob"),
        pytest.param(["notes.txt", "b.jpg"], ["b.jpg", "notes.txt"], id="named-outright-whatever-it-is"),
        pytest.param(["below", "b.jpg", "*.jpg"], ["b.jpg", "below/c.jpeg", "x[1].jpg"], id="several-once"),
    ],
)
def test_expansion(folder, sources, expected):
    assert find_images([folder / source for source in sources]) == [folder / name for name in expected]


def test_one_source_may_stand_alone(folder):
    assert find_images(str(folder / "b.jpg")) == find_images(folder / "b.jpg") == [folder / "b.jpg"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param("missing.jpg", "no such file", id="missing"),
        pytest.param("gone.jpg", "no such file", id="broken-link"),
        pytest.param("empty", "no picture in this folder", id="folder-without-pictures"),
        pytest.param("folder.jpg", "no picture in this folder", id="folder-named-like-a-picture"),
        pytest.param("*.tiff", "matches nothing", id="glob-without-match"),
        pytest.param("*.txt", "none of them a picture", id="glob-without-picture"),
        pytest.param("nul\0.jpg", "no such file", id="nul"),
        pytest.param("nul\0*.jpg", "cannot be read|matches nothing", id="nul-glob"),
        pytest.param("n" * 5000 + ".jpg", "too long", id="too-long"),
    ],
)
def test_refusal_names_the_source(folder, source, message):
    with pytest.raises(ImageError, match=message) as caught:
        find_images([folder / "b.jpg", folder / source])
    assert source in str(caught.value)


def test_an_empty_name_is_not_the_working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert len(find_images(".")) == 3
    for source in ("", ["b.jpg", ""]):
        with pytest.raises(ImageError, match="an empty name; the working folder is"):
            find_images(source)


def test_no_source_at_all():
    with pytest.raises(ImageError, match="no picture was named"):
        find_images([])
