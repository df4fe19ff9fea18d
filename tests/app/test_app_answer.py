"""What the page shows of a picture: the predictor's own numbers, drawn in the right places."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from app_stubs import Queries, Spots, opened, spots_predictor, spotted

from fastpose.app.answer import (
    MAX_PEOPLE,
    check_boxes,
    draw_maps,
    draw_skeletons,
    find_joints,
    headline,
    joint_table,
)
from fastpose.app.heatmaps import person_heatmaps
from fastpose.errors import DataError
from fastpose.infer.export.run import export_model
from fastpose.infer.predictor import Predictor

BOX = [[200, 100, 400, 400]]
RED, GREEN = (300, 200), (500, 350)


def centre_of_light(image: np.ndarray) -> np.ndarray:
    """(x, y) of the mean pixel, each counted as often as it is bright."""
    light = image.sum(axis=2, dtype=float)
    return (
        np.array([light.sum(axis=axis) @ np.arange(light.shape[1 - axis]) for axis in (0, 1)]) / light.sum()
    )


def test_the_answer_is_the_predictors() -> None:
    image = spotted(800, 600, RED, GREEN, 12)
    predictor = spots_predictor()
    answer = find_joints(predictor, opened(image, "me.png"), BOX)
    (result,) = predictor(image, BOX)
    told, expected = json.loads(answer.result.to_json()), json.loads(result.to_json())
    assert told.pop("name") == "me.png"
    expected.pop("name")
    assert told == expected
    assert np.abs(answer.result.keypoints.xy[0] - (RED, GREEN)).max() <= 40, (
        "less than two pixels of a heatmap"
    )


def test_without_boxes_the_whole_picture_is_taken() -> None:
    answer = find_joints(spots_predictor(), opened(spotted(800, 600, RED, GREEN, 12)), [])
    assert answer.result.found_by == "whole"
    assert answer.result.boxes.xywh.tolist() == [[0, 0, 800, 600]]
    assert headline(answer, "cpu").startswith("The whole picture as one person in ")


@pytest.mark.parametrize("codec", ["msra", "udp"])
@pytest.mark.parametrize("times", [1, 4], ids=["as-it-is", "shrunk"])
@pytest.mark.parametrize(("joint", "place"), [(0, RED), (1, GREEN)], ids=["red", "green"])
def test_heatmaps_lie_over_what_they_saw(codec: str, times: int, joint: int, place: tuple[int, int]) -> None:
    image = np.kron(spotted(800, 600, RED, GREEN, 12), np.ones((times, times, 1), np.uint8))
    boxes = [[side * times for side in BOX[0]]]
    answer = find_joints(spots_predictor(codec), opened(image), boxes)
    assert answer.picture.shape[1] == min(1280, 800 * times)
    factor = answer.picture.shape[1] / 800
    answer.picture[:] = 0
    drawn = draw_maps(answer, joint)
    assert drawn is not None
    # One pixel of a map is 31 wide here; the middle of its glow is where the square was.
    assert np.abs(centre_of_light(drawn) - np.array(place) * factor).max() <= 4 * factor


def test_all_joints_of_everyone_are_the_largest_values() -> None:
    image = spotted(800, 600, RED, GREEN, 12)
    answer = find_joints(spots_predictor(), opened(image), [[200, 100, 300, 300], [400, 250, 200, 200]])
    pair = np.stack([draw_maps(answer, joint) for joint in (0, 1)]).sum(axis=3).max(axis=0)
    np.testing.assert_array_equal(draw_maps(answer).sum(axis=2), pair)
    first, second = (draw_maps(answer, None, person).astype(int).sum() for person in (0, 1))
    both = draw_maps(answer).astype(int).sum()
    assert both > max(first, second) > 0


@pytest.mark.parametrize(("joint", "person"), [(2, None), (-1, None), (0, 1)])
def test_maps_that_are_not_there(joint: int, person: int | None) -> None:
    answer = find_joints(spots_predictor(), opened(spotted(800, 600, RED, GREEN, 12)), BOX)
    with pytest.raises(DataError, match="choose another"):
        draw_maps(answer, joint, person)


def test_heatmaps_go_through_the_network_in_batches() -> None:
    image = spotted(800, 600, RED, GREEN, 12)
    boxes = np.array([[100 + 10 * row, 50, 500, 500] for row in range(5)], np.float64)
    whole = person_heatmaps(spots_predictor(batch_size=32), image, boxes)
    parts = person_heatmaps(spots_predictor(batch_size=2), image, boxes)
    np.testing.assert_array_equal(whole.maps, parts.maps)
    assert whole.maps.shape == (5, 2, 16, 16)
    assert whole.maps.max() > 60


def test_a_network_of_queries_has_no_heatmaps() -> None:
    predictor = Predictor(Queries(), detector="whole", device="cpu")
    image = spotted(800, 600, RED, GREEN, 12)
    assert person_heatmaps(predictor, image, np.array(BOX, np.float64)) is None
    answer = find_joints(spots_predictor(), opened(image), BOX)
    answer.heatmaps = None
    assert draw_maps(answer) is None


@pytest.mark.parametrize("takes", ["crops", "images"])
def test_an_exported_network_has_the_heatmaps_of_the_network(tmp_path: Path, takes: str) -> None:
    file = export_model(Spots(), tmp_path / "spots.pt2", takes=takes).path
    image = spotted(800, 600, RED, GREEN, 12)
    exported = Predictor(file, detector="whole", device="cpu", flip_test=False)
    found = find_joints(exported, opened(image), BOX)
    wanted = find_joints(spots_predictor(), opened(image), BOX)
    assert wanted.heatmaps.maps.max() > 60
    assert np.abs(found.heatmaps.maps.astype(int) - wanted.heatmaps.maps).max() <= 1
    np.testing.assert_allclose(found.result.keypoints.xy, wanted.result.keypoints.xy, atol=0.01)


def test_an_exported_network_that_finds_keypoints_has_no_heatmaps(tmp_path: Path) -> None:
    file = export_model(Spots(), tmp_path / "spots.pt2", decode="image", flip_test=True).path
    answer = find_joints(
        Predictor(file, detector="whole", device="cpu"), opened(spotted(800, 600, RED, GREEN, 12)), BOX
    )
    assert answer.heatmaps is None
    assert answer.result.keypoints.valid.all()


def test_skeletons_are_drawn_where_the_joints_are() -> None:
    image = np.kron(spotted(800, 600, RED, GREEN, 12), np.ones((4, 4, 1), np.uint8))
    answer = find_joints(spots_predictor(), opened(image), [[800, 400, 1600, 1600]])
    changed = (draw_skeletons(answer)[..., ::-1] != answer.picture).any(axis=2)
    for x, y in (answer.result.keypoints.xy[0] * answer.factor).round().astype(int):
        assert changed[y - 3 : y + 4, x - 3 : x + 4].all()
    box = np.argwhere(draw_skeletons(answer, 1.0)[..., ::-1] != answer.picture)[:, :2]
    top, left = box.min(axis=0)
    assert abs(left - 800 * answer.factor) <= 6
    assert changed.sum() > len({tuple(place) for place in box}), "above 1.0 no joint is left, only the box"
    assert top < 400 * answer.factor + 6


def test_nothing_usable_and_too_much() -> None:
    picture = opened(spotted(800, 600, RED, GREEN, 12))
    with pytest.raises(DataError, match=r"outside the picture.*draw another"):
        find_joints(spots_predictor(), picture, [[5000, 5000, 10, 10]])
    with pytest.raises(DataError, match=f"at most {MAX_PEOPLE}"):
        check_boxes([BOX[0]] * (MAX_PEOPLE + 1))
    with pytest.raises(DataError, match="expected a list"):
        check_boxes({"0": BOX[0]})
    answer = find_joints(spots_predictor(), picture, [*BOX, [0, 0, -5, 5]])
    assert len(answer.result) == 1
    assert "Left out: box 1" in headline(answer, "cpu")


def test_the_table_has_every_joint_and_a_dash_for_absent_ones() -> None:
    image = spotted(800, 600, RED, GREEN, 12)
    image[..., 1] = 0  # nothing green: the right spot is nowhere
    answer = find_joints(spots_predictor(), opened(image), BOX)
    x, y = answer.result.keypoints.xy[0, 0]
    rows = joint_table(answer).split("<tr>")[2:]
    assert len(rows) == 2
    assert f"<td>left spot</td><td>{x:.1f}</td><td>{y:.1f}</td>" in rows[0]
    assert "<td>right spot</td><td>-</td><td>-</td><td>-</td>" in rows[1]


def test_the_stub_is_what_it_says() -> None:
    assert Spots().meta.codec == "msra"
    assert Spots("udp").meta.codec == "udp"
