"""Buttons pressed on anything: a view or a message, never an exception, and the next press works."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from app_stubs import opened, spots_predictor, spotted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastpose.app import desk as desk_module
from fastpose.app.answer import MAX_PEOPLE
from fastpose.app.desk import (
    BROKEN,
    EVERYONE,
    FORGOTTEN,
    KEEP,
    NO_MEMORY,
    NO_PICTURE,
    Desk,
    View,
    guarded,
    note,
)
from fastpose.errors import DataError
from fastpose.infer.detectors import PeopleDetector

BOX = [200, 100, 400, 400]
SMALL = opened(spotted(160, 120, (60, 40), (100, 70), 3))
PICTURE = opened(spotted(800, 600, (300, 200), (500, 350), 12))
NUMBERS = st.one_of(
    st.floats(), st.integers(), st.floats(-1000, 1000), st.sampled_from([1e9, 1e30, -1e30, 5e-324])
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)
ROWS = st.lists(st.lists(NUMBERS, min_size=4, max_size=4), max_size=4)


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk(spots_predictor(), PeopleDetector(), "people")


def said(view: View) -> str:
    """The message that a view shows, which must be an alert."""
    match = re.fullmatch(r'<p class="error" role="alert">(.*)</p>', view.status)
    assert match, view.status
    return match[1]


def is_untouched(view: View) -> bool:
    return all(value is KEEP for name, value in vars(view).items() if name != "status")


def test_a_file_is_shown_and_waits_for_boxes(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    cv2.imwrite(str(path), np.full((30, 2560, 3), 200, np.uint8))
    view = desk.open_file(str(path))
    assert (view.preview["width"], view.preview["height"]) == (2560, 30)
    data = base64.b64decode(view.preview["src"].removeprefix("data:image/jpeg;base64,"))
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (15, 1280, 3)
    assert (view.boxes, view.answer, view.skeletons, view.maps, view.people) == (
        [],
        None,
        None,
        None,
        [EVERYONE],
    )
    assert "wide.png, 2560x30" in view.status


def test_a_sample_is_answered_at_once(desk: Desk) -> None:
    view = desk.open_sample(1)
    assert view.opened.name == "figure_2.png"
    assert view.boxes == view.opened.boxes
    assert len(view.answer.result) == len(view.boxes) == len(view.people) - 1
    assert view.skeletons.shape == view.maps.shape == (384, 384, 3)


def test_the_json_is_the_results(desk: Desk) -> None:
    view = desk.find_joints(PICTURE, [BOX])
    link = re.search(r'download="(.*?)" href="data:application/json;base64,(.*?)"', view.save)
    assert link[1] == "spots_pose.json"
    assert base64.b64decode(link[2]).decode() == view.answer.result.to_json()


def test_the_detectors_boxes_take_the_place_of_the_others() -> None:
    boxes = np.array([[1.25, 2, 30, 40], [900, 0, 5, 5], [5, 5, 50, 60]])
    view = Desk(spots_predictor(), lambda image: boxes, "mine").find_people(PICTURE)
    assert view.boxes == [[1.2, 2, 30, 40], [5, 5, 50, 60]], "without the one that lies outside"
    assert "2 boxes by the detector (mine)" in view.status
    nobody = Desk(spots_predictor(), lambda image: [], "mine").find_people(PICTURE)
    assert "(mine) finds nobody in spots.png; draw boxes" in said(nobody)
    assert is_untouched(nobody)


@pytest.mark.parametrize(
    ("press", "words"),
    [
        (lambda desk: desk.open_file(None), NO_PICTURE),
        (lambda desk: desk.find_joints(None, []), NO_PICTURE),
        (lambda desk: desk.find_people(None), NO_PICTURE),
        (lambda desk: desk.draw_skeletons(None, 0.2), FORGOTTEN),
        (lambda desk: desk.draw_maps(None, "nose", EVERYONE), FORGOTTEN),
        (lambda desk: desk.find_joints(PICTURE, [BOX] * (MAX_PEOPLE + 1)), f"at most {MAX_PEOPLE}"),
        (lambda desk: desk.open_sample(99), "choose one of them"),
    ],
    ids=["no-file", "joints", "people", "skeletons", "maps", "crowd", "sample"],
)
def test_pressed_too_early_or_too_much(desk: Desk, press: Callable[[Desk], View], words: str) -> None:
    view = press(desk)
    assert words in said(view)
    assert is_untouched(view)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("secret"), BROKEN),
        (cv2.error("secret"), BROKEN),
        (MemoryError("secret"), NO_MEMORY),
        (torch.OutOfMemoryError("secret"), NO_MEMORY),
        (DataError("<b>shown</b>"), "&lt;b&gt;shown&lt;/b&gt;."),
    ],
    ids=["runtime", "cv2", "memory", "gpu-memory", "typed"],
)
def test_any_failure_is_a_message(error: Exception, words: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> View:
        raise error

    told = said(guarded(fail))
    assert words in told
    assert "secret" not in told
    assert ("secret" in caplog.text) == (not isinstance(error, DataError)), "the terminal has the traceback"


def test_names_cannot_write_into_the_page(desk: Desk) -> None:
    name = '"><img src=x onerror=alert(1)>.png'
    view = desk.find_joints(opened(PICTURE.load(), name), [BOX])
    broken = desk.find_people(opened(np.zeros((600, 800, 3), np.uint8), name))
    for text in (view.save, view.status, view.joints, said(broken), note(name)):
        assert "<img" not in text
    assert view.save.count('"') == 6, "three attributes, none broken out of"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(boxes=st.one_of(JSON, ROWS), threshold=st.floats(0, 1))
def test_any_boxes(desk: Desk, boxes: Any, threshold: float) -> None:
    view = desk.find_joints(SMALL, boxes, threshold)
    if view.answer is KEEP:
        assert BROKEN not in said(view)
        return
    record = json.loads(view.answer.result.to_json(), parse_constant=pytest.fail)
    assert 1 <= len(record["people"]) <= MAX_PEOPLE
    assert view.skeletons.shape == view.maps.shape == (120, 160, 3)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=JSON, second=JSON)
def test_any_choice(desk: Desk, first: Any, second: Any) -> None:
    answer = find_once(desk)
    for view in (desk.draw_maps(answer, first, second), desk.open_sample(first)):
        assert view.status is KEEP or view.answer is not KEEP or BROKEN not in said(view)
    assert desk.draw_maps(answer, "left spot", "person 1").maps.shape == (120, 160, 3)
    assert "choose another" in said(desk.draw_maps(answer, "left spot", "person 2"))


_answers: dict[int, Any] = {}


def find_once(desk: Desk) -> Any:
    return _answers.setdefault(id(desk), desk.find_joints(SMALL, [[40, 20, 80, 80]]).answer)


def test_a_choice_changes_what_is_seen(desk: Desk) -> None:
    answer = find_once(desk)
    shown = [
        desk.draw_maps(answer, joint, EVERYONE).maps for joint in ("left spot", "right spot", "all joints")
    ]
    assert (shown[0] != shown[1]).any()
    np.testing.assert_array_equal(desk.draw_maps(answer, "all joints", "person 1").maps, shown[2])
    few = desk.draw_skeletons(answer, 1.0).skeletons
    assert (few != desk.draw_skeletons(answer, 0.0).skeletons).any()


def test_warm_up_runs_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, seen = Desk(spots_predictor(), PeopleDetector(), "people"), []
    monkeypatch.setattr(desk.predictor.model, "forward", lambda x: seen.append(x.shape) or x[:, :2, ::4, ::4])
    monkeypatch.setattr(desk_module, "samples", lambda: (PICTURE,))
    desk.warm_up()
    assert seen
