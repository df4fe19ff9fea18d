"""Rendered figures: what the labels say is what the picture shows."""

import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest

from fastpose.data.figures import PARTS, FigureStyle
from fastpose.data.figures.compose import compose_scene, compose_scenes
from fastpose.data.figures.details import Look
from fastpose.data.figures.render import render
from fastpose.data.figures.skeleton import LANDMARKS
from fastpose.errors import ConfigError

ALONE = FigureStyle(people=(1, 1), occluders=False, truncation=0.0, noise=0.0)
CROWD = FigureStyle(people=(3, 4), noise=0.0)
BLACK, WHITE, GREEN, RED = (0, 0, 0), (255, 255, 255), (0, 255, 0), (0, 0, 255)


def look(colour, iris=None):
    return Look((colour,) * 5, colour, "plain", False, iris or colour)


def dressed(monkeypatch, scene, looks):
    """The picture of the scene with these looks instead of random ones."""
    left = iter(looks)
    monkeypatch.setattr("fastpose.data.figures.render.random_look", lambda rng: next(left))
    return render(scene).astype(int)


def same(a, b):
    return (
        all((x.landmarks == y.landmarks).all() for x, y in zip(a.figures, b.figures, strict=True))
        and all((x.visibility == y.visibility).all() for x, y in zip(a.figures, b.figures, strict=True))
        and [x.box for x in a.figures] == [y.box for y in b.figures]
        and (a.mask == b.mask).all()
    )


def test_a_scene_is_the_same_alone_and_among_others():
    together = compose_scenes(7, range(5, 70))
    assert all(
        same(compose_scene(7, index), scene) for index, scene in zip(range(5, 70), together, strict=True)
    )


def test_pictures_depend_on_seed_and_index_only():
    first = render(compose_scene(1, 2))
    np.testing.assert_array_equal(first, render(compose_scene(1, 2)))
    assert not np.array_equal(first, render(compose_scene(2, 2)))
    assert not np.array_equal(first, render(compose_scene(1, 3)))
    assert first.shape == (256, 256, 3)
    assert first.dtype == np.uint8


def test_another_process_draws_the_same_picture():
    code = (
        "import zlib; from fastpose.data.figures import FigureImages;"
        "print(zlib.crc32(FigureImages(9, seed=4).read('000000000009.jpg').tobytes()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == zlib.crc32(render(compose_scene(4, 8)).tobytes())


@pytest.mark.parametrize("index", range(12))
def test_instance_mask_is_where_the_picture_shows_the_person(monkeypatch, index):
    scene = compose_scene(3, index, style=CROWD)
    people = len(scene.figures)
    instances = scene.instance_mask()
    head = scene.part_mask() == PARTS.index("head")
    for i in range(people):
        dark = [look(BLACK)] * people
        light = [look(WHITE) if k == i else look(BLACK) for k in range(people)]
        changed = (
            np.abs(dressed(monkeypatch, scene, light) - dressed(monkeypatch, scene, dark)).max(axis=2) > 60
        )
        own = (instances == i + 1).astype(np.uint8)
        square = np.ones((3, 3), np.uint8)
        inside = cv2.erode(own, square) > 0
        assert changed[inside & ~head].mean() > 0.995  # a gap narrower than a pixel may show through
        assert changed[inside].mean() > 0.9  # eyes and mouth keep their colours
        assert changed[cv2.dilate(own, square) == 0].mean() < 0.001


@pytest.mark.parametrize("index", range(0, 200, 5))
def test_visible_joints_lie_on_their_own_limbs(index):
    scene = compose_scene(5, index, style=CROWD)
    parts, instances = scene.part_mask(), scene.instance_mask()
    near = {
        "elbow": ("upper_arm", "forearm"), "wrist": ("forearm", "hand"), "knee": ("thigh", "shin"),
        "ankle": ("shin", "foot"),
    }  # fmt: skip
    for i, figure in enumerate(scene.figures):
        if not figure.visibility.any():
            continue
        for name, (x, y), v in zip(LANDMARKS, figure.landmarks, figure.visibility, strict=True):
            column, row = round(x), round(y)
            inside = 0 <= column < 256 and 0 <= row < 256
            assert (v > 0) == inside
            side, _, joint = name.partition("_")
            if not inside or joint not in near:
                continue
            part = PARTS[parts[row, column]]
            shown = instances[row, column] == i + 1 and part in [f"{side}_{limb}" for limb in near[joint]]
            assert (v == 2) == shown, name


@pytest.mark.parametrize("index", range(25))
def test_eyes_are_drawn_where_they_are_labelled_visible(monkeypatch, index):
    scene = compose_scene(11, index, style=ALONE, image_size=(512, 512))
    figure = scene.figures[0]
    picture = dressed(monkeypatch, scene, [look(RED, iris=GREEN)])
    marked = (picture[..., 1] > 90) & (picture[..., 2] < 120) & (scene.part_mask() == PARTS.index("head"))
    for name in ("left_eye", "right_eye"):
        k = LANDMARKS.index(name)
        x, y = np.rint(figure.landmarks[k]).astype(int)
        seen = marked[y - 3 : y + 4, x - 3 : x + 4].any()
        if figure.visibility[k] == 2:
            assert seen, name
    if (figure.visibility[1:3] == 1).all():
        assert marked.sum() <= 12  # slivers of an iris at the rim of the head


@pytest.mark.parametrize(
    ("facing", "share"), [((1, 0, 0), (0.75, 1.0)), ((0, 0, 1), (0.0, 0.25))], ids=["front", "back"]
)
def test_faces_show_from_the_front_only(facing, share):
    style = FigureStyle(people=(1, 1), occluders=False, truncation=0, lying=0, facing=facing)
    figures = [scene.figures[0] for scene in compose_scenes(2, range(200), style=style)]
    seen = np.mean([figure.visibility[0] == 2 for figure in figures])
    assert share[0] <= seen <= share[1]
    sign = 1 if facing[0] else -1
    right_way = [sign * (f.landmarks[5, 0] - f.landmarks[6, 0]) > 0 for f in figures]
    assert np.mean(right_way) > 0.85


@pytest.mark.parametrize("size", [(256, 256), (200, 320), (640, 360)], ids=str)
def test_a_person_alone_is_whole_and_in_the_box(size):
    for scene in compose_scenes(13, range(80), style=ALONE, image_size=size):
        figure = scene.figures[0]
        rows, columns = np.nonzero(scene.mask)
        x, y, width, height = figure.box
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
        assert figure.area == len(rows)
        assert (figure.visibility > 0).all()
        low, high = figure.landmarks.min(axis=0), figure.landmarks.max(axis=0)
        assert (low >= np.array([x, y]) - 1).all()
        assert (high <= np.array([x + width, y + height])).all()


def test_boxes_and_areas_in_a_crowd_are_those_of_what_is_in_sight():
    hidden = 0
    for scene in compose_scenes(17, range(60), style=CROWD):
        instances = scene.instance_mask()
        for i, figure in enumerate(scene.figures):
            rows, columns = np.nonzero(instances == i + 1)
            assert figure.area == len(rows)
            if figure.area == 0:
                hidden += 1
                continue
            x, y, width, height = figure.box
            assert (x, y) == (columns.min(), rows.min())
            assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
            seen = figure.landmarks[figure.visibility == 2]
            assert (seen >= np.array([x, y]) - 0.5).all()
            assert (seen <= np.array([x + width, y + height]) - 0.5).all()
    assert hidden < 10


def test_styles_do_what_they_say():
    def cut(style):
        scenes = compose_scenes(19, range(60), style=style)
        return np.mean([(figure.visibility == 0).any() for scene in scenes for figure in scene.figures])

    assert cut(FigureStyle(people=(1, 2), truncation=0.0, occluders=False)) < 0.1
    assert cut(FigureStyle(people=(1, 2), truncation=1.0, occluders=False)) > 0.6
    scenes = compose_scenes(19, range(60), style=FigureStyle(people=(2, 3)))
    assert {len(scene.figures) for scene in scenes} == {2, 3}
    assert 5 < sum(bool(scene.props) for scene in scenes) < 40
    assert {prop.kind for scene in compose_scenes(19, range(200)) for prop in scene.props} == {
        "pole", "box", "plant", "rail",
    }  # fmt: skip
    plain = compose_scenes(19, range(60), style=FigureStyle(occluders=False))
    assert not any(scene.props for scene in plain)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"people": (0, 2)}, "people"),
        ({"people": (3, 2)}, "people"),
        ({"people": (1, 9)}, "people"),
        ({"truncation": 1.5}, "truncation"),
        ({"lying": -0.1}, "lying"),
        ({"facing": (0, 0, 0)}, "facing"),
        ({"noise": 99.0}, "noise"),
    ],
    ids=lambda value: str(value),
)
def test_impossible_styles_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        FigureStyle(**values)
