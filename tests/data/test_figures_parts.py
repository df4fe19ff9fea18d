"""Body parts of figures, against the pixels that are drawn."""

import numpy as np
import pytest

from fastpose.classes import BODY_PARTS, IGNORE
from fastpose.data.figures import FigureImages, FigureStyle, render
from fastpose.data.figures.parts import part_labels, read_figure_parts, write_figure_parts
from fastpose.data.figures.shapes import PARTS
from fastpose.data.voc import read_voc
from fastpose.errors import DataError, ImageError

EXPECTED = {
    "head": {"head"},
    "torso": {"neck", "torso", "pelvis"},
    "upper arms": {"left_upper_arm", "right_upper_arm"},
    "lower arms": {"left_forearm", "right_forearm", "left_hand", "right_hand"},
    "upper legs": {"left_thigh", "right_thigh"},
    "lower legs": {"left_shin", "right_shin", "left_foot", "right_foot"},
}
"""The merged parts of PASCAL-Person-Part, by the names of the renderer's."""


def drawn_in_class_colours(monkeypatch, scene):
    """The picture as `render` draws it, in flat colours: grey levels 30 x class."""

    def level(part):
        name = PARTS[part]
        found = [place for place, parts in enumerate(EXPECTED.values(), 1) if name in parts]
        return (30 * found[0],) * 3

    dress = render.dress

    def flat_dress(scene):
        rng, looks, patches = dress(scene)
        head, torso = level(PARTS.index("head")), level(PARTS.index("torso"))
        recoloured = [
            {
                "face": [(outline, head) for outline, _ in own["face"]],
                "torso": [(outline, torso) for outline, _ in own["torso"]],
            }
            for own in patches
        ]
        return rng, looks, recoloured

    monkeypatch.setattr(render, "dress", flat_dress)
    monkeypatch.setattr(render, "_colour", lambda shape, look: level(shape.part))
    monkeypatch.setattr(render, "shade", lambda colour, factor: (0, 0, 0))  # props
    monkeypatch.setattr(
        render, "draw_background", lambda rng, size, horizon: np.zeros((size[1], size[0], 3), np.uint8)
    )
    monkeypatch.setattr(render, "_apply_light", lambda picture, *others: picture)
    return render.render(scene)


@pytest.mark.parametrize("index", range(12))
def test_labels_are_those_of_the_pixels_drawn(monkeypatch, index):
    images = FigureImages(12, seed=8, image_size=(200, 160), style=FigureStyle(people=(2, 5)))
    scene = images.scene(f"{index + 1:012d}.jpg")
    labels = part_labels(scene)
    drawn = drawn_in_class_colours(monkeypatch, scene)[..., 0]
    known = labels != IGNORE
    np.testing.assert_array_equal(drawn[known], 30 * labels[known])
    assert known.mean() > 0.7
    # A mean that is no class's level is a mixture; the other way round it need not be.
    assert (labels[drawn % 30 != 0] == IGNORE).all()


def test_every_part_of_the_mask_has_its_class():
    images = FigureImages(8, seed=1)
    seen = set()
    for index in range(8):
        name = f"{index + 1:012d}.jpg"
        scene = images.scene(name)
        labels, parts = part_labels(scene), scene.part_mask()
        for label, own in enumerate(EXPECTED.values(), 1):
            inside = np.isin(parts, [PARTS.index(part) for part in own])
            agree = (labels[inside] == label) | (labels[inside] == IGNORE)
            if inside.sum() > 300:
                seen.add(label)
                assert agree.mean() > 0.93
    assert seen == set(range(1, 7))


def test_only_pixels_on_an_edge_are_ignored():
    scene = FigureImages(3, seed=2).scene("000000000002.jpg")
    labels = part_labels(scene)
    ignored = np.argwhere(labels == IGNORE)
    assert 0 < len(ignored) < 0.25 * (labels > 0).sum()
    padded = np.pad(labels, 2, mode="edge")
    classes = [set(padded[y : y + 5, x : x + 5].ravel().tolist()) - {IGNORE} for y, x in ignored]
    # The rest are slivers between limbs, narrower than a pixel.
    assert np.mean([len(each) > 1 for each in classes]) > 0.99


def test_the_set_reads_as_pictures_with_labels():
    table = read_figure_parts(5, seed=3, image_size=(96, 64))
    assert table.classes == BODY_PARTS
    assert len(table) == 5
    sample = table.read(4)
    np.testing.assert_array_equal(sample.pixels, FigureImages(5, 3, (96, 64)).read("000000000005.jpg"))
    assert sample.labels.shape == (64, 96)
    np.testing.assert_array_equal(
        read_figure_parts(9, seed=3, image_size=(96, 64)).read(4).labels, sample.labels
    )
    assert not np.array_equal(read_figure_parts(5, seed=4, image_size=(96, 64)).read(4).labels, sample.labels)
    with pytest.raises(ImageError, match="no rendered picture"):
        table.labels.read("000000000006.jpg")


def test_the_set_is_written_in_the_layout_of_voc(tmp_path):
    written = write_figure_parts(tmp_path, 3, seed=5, image_size=(80, 64), split="val")
    assert written == tmp_path / "ImageSets/Segmentation/val.txt"
    table, expected = (
        read_voc(tmp_path, "val", on_bad="stop"),
        read_figure_parts(3, seed=5, image_size=(80, 64)),
    )
    assert table.classes == BODY_PARTS
    for place in range(3):
        got, want = table.read(place), expected.read(place)
        np.testing.assert_array_equal(got.labels, want.labels)
        assert np.abs(got.pixels.astype(int) - want.pixels).mean() < 12  # JPEG, of grainy pictures


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(DataError, match="count"):
        write_figure_parts(tmp_path / "out", 0)
    with pytest.raises(DataError, match="image_size"):
        read_figure_parts(2, image_size=(8, 8))
    assert not (tmp_path / "out").exists()
