"""Pictures read ahead on threads: the same results, in order, in little memory, and nothing left behind."""

import itertools
import random
import threading
import time
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pose_stubs import ChannelPeaks

from fastpose.errors import ConfigError, ImageError
from fastpose.infer import pipeline
from fastpose.infer.boxes_in import Found
from fastpose.infer.items import Item
from fastpose.infer.pipeline import AHEAD, read_ahead, reading_threads
from fastpose.infer.predictor import Predictor
from fastpose.infer.run_pictures import run_pictures
from fastpose.infer.stages import Crop, Crops, Joints, Picture, Stages

WORKERS = 3


def items(count: int, **more) -> list[Item]:
    return [
        Item(index, f"picture {index}", lambda: np.zeros(0), ahead=True, **more) for index in range(count)
    ]


def people(boxes: int) -> Found:
    """Boxes whose x is their number."""
    return Found(np.array([[number, 0.0, 4, 4] for number in range(boxes)]).reshape(-1, 4), np.ones(boxes))


def numbered(item: Item) -> np.ndarray:
    """A picture that holds its number."""
    return np.full((4, 4, 3), item.index % 251, np.uint8)


def cut_whole(image, boxes):
    for box in boxes:
        yield Crop(image, box[:2], np.ones(2))


def peaks(crops: Crops):
    """x is the number of the crop's picture, y that of its box."""
    xy = np.stack([crops.pixels[:, 0, 0, 0], crops.center[:, 0]], axis=1)[:, None]
    return lambda: Joints(xy, np.ones(xy.shape[:2]), np.ones(xy.shape[:2], bool))


def gather(picture) -> tuple:
    return picture.item.index, [tuple(map(int, row[0][0])) for row in picture.joints]


def stages(**more) -> Stages:
    chosen = {
        "read": numbered, "find": lambda item, image: people(1), "cut": cut_whole, "forward": peaks,
        "gather": gather, "batch_size": 4, "workers": WORKERS,
    }  # fmt: skip
    return Stages(**(chosen | more))


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("fastpose-pictures")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of several sizes, one of them cut short and one no picture at all."""
    rng = np.random.default_rng(0)
    for number in range(24):
        size = (int(rng.integers(20, 90)), int(rng.integers(20, 90)), 3)
        cv2.imwrite(str(tmp_path / f"{number:02d}.png"), rng.integers(0, 255, size, np.uint8))
    cut_short = tmp_path / "07.png"
    cut_short.write_bytes(cut_short.read_bytes()[:-40])
    (tmp_path / "11.png").write_bytes(b"nothing")
    return tmp_path


@pytest.mark.parametrize("stream", [False, True], ids=["list", "stream"])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_threads_change_no_bit(folder, workers, stream):
    """The network sees the same crops in the same batches, and the results are the same."""
    rng = np.random.default_rng(1)
    boxes = [rng.uniform(1, 20, (count, 4)) for count in [0, 1, 2, 5, 40, 1] * 4]
    runs = []
    for threads in (0, workers):
        model = ChannelPeaks()
        predict = Predictor(model, batch_size=7, workers=threads, device="cpu")
        runs.append((model, list(predict(folder, boxes, stream=stream))))
    (one, expected), (other, got) = runs
    assert one.batches == other.batches
    for a, b in zip(one.inputs, other.inputs, strict=True):
        assert torch.equal(a, b)
    assert [result.path for result in got] == sorted(folder.iterdir())
    for a, b in zip(expected, got, strict=True):
        assert str(a.error) == str(b.error)
        np.testing.assert_array_equal(a.boxes.xywh, b.boxes.xywh)
        np.testing.assert_array_equal(a.keypoints.xy, b.keypoints.xy)
        np.testing.assert_array_equal(a.keypoints.conf, b.keypoints.conf)
        assert a.speed.keys() == b.speed.keys()
    bad = [result for result in got if result.error is not None]
    assert [result.path.stem for result in bad] == ["07", "11"]
    assert all(isinstance(result.error, ImageError) and len(result) == 0 for result in bad)
    assert not our_threads()


def test_order_is_kept_whatever_takes_long():
    def slow(item):
        time.sleep(random.Random(item.index).random() / 200)
        return numbered(item)

    found = list(run_pictures(items(60), stages(read=slow, find=lambda item, image: people(item.index % 3))))
    assert found == [(i, [(i, row) for row in range(i % 3)]) for i in range(60)]


def test_pictures_are_read_side_by_side():
    """Each read waits for another one: alone it would never end."""
    meeting = threading.Barrier(2)

    def read(item):
        meeting.wait(timeout=20)
        return numbered(item)

    assert len(list(run_pictures(items(6), stages(read=read, workers=2)))) == 6


@pytest.mark.parametrize("keep_pixels", [False, True], ids=["let-go", "kept"])
def test_memory_is_bounded(keep_pixels):
    """Of thousands of pictures only those between source and network are alive, and few are asked for."""
    alive: weakref.WeakSet = weakref.WeakSet()
    asked = most_alive = most_ahead = 0

    class Pixels(np.ndarray):
        """An array that can be counted: a WeakSet hashes what it holds."""

        __hash__ = object.__hash__

    def read(item):
        image = numbered(item).view(Pixels)
        alive.add(image)
        return image

    def source():
        nonlocal asked
        for item in items(3000):
            asked += 1
            yield item

    run = run_pictures(source(), stages(read=read, keep_pixels=keep_pixels, gather=lambda picture: None))
    for done, _ in enumerate(run, 1):
        most_alive = max(most_alive, len(alive))
        most_ahead = max(most_ahead, asked - done)
    assert done == 3000
    # Two may be in the hands of threads that have finished with them.
    assert most_alive <= AHEAD * WORKERS + (4 if keep_pixels else 1) + 2
    assert 0 < most_ahead <= AHEAD * WORKERS + 4


def test_waiting_pixels_are_bounded_in_bytes(monkeypatch):
    """With no room for a second picture, nothing is asked for while pictures wait that are read."""
    monkeypatch.setattr(pipeline, "AHEAD_BYTES", 1)
    asked = read = 0
    one, plainly = threading.Lock(), Picture.read

    def source():
        nonlocal asked
        for item in items(40):
            asked += 1
            yield item

    def counted(picture, stages):
        nonlocal read
        plainly(picture, stages)
        with one:
            read += 1

    monkeypatch.setattr(Picture, "read", counted)
    before = 0
    for number, _ in enumerate(read_ahead(source(), stages())):
        assert asked == before or number == before, "all that were asked for before are handed out"
        before = asked
        while read < asked:
            time.sleep(0.001)
    assert number == 39


def test_crops_of_a_crowd_are_cut_as_they_are_asked_for():
    cut = 0

    def counting(image, boxes):
        nonlocal cut
        cut += len(boxes)
        return cut_whole(image, boxes)

    crowd = stages(find=lambda item, image: people(10_000), cut=counting)
    ahead = read_ahead(items(1), crowd)
    _, crops = next(ahead)
    rows = [next(crops).center[0] for _ in range(100)]
    assert rows == list(range(100))
    assert cut <= 100 + pipeline.BOXES * (WORKERS + 1)
    ahead.close()


def test_nobody_in_sight_does_not_hold_the_results_back():
    """A batch in flight is collected once enough pictures without people wait behind it."""
    asked = 0

    def source():
        nonlocal asked
        for item in items(400):
            asked += 1
            yield item

    first = stages(find=lambda item, image: people(int(item.index == 0)), in_flight=1)
    run = run_pictures(source(), first)
    assert next(run) == (0, [(0, 0)])
    assert asked <= 2 * 4 + AHEAD * WORKERS + 1
    assert list(itertools.islice(run, 50)) == [(i, []) for i in range(1, 51)]
    run.close()
    assert not our_threads()


def test_batch_in_flight_is_read_after_the_next_is_started():
    events: list[str] = []

    def forward(crops):
        number = sum(event.startswith("start") for event in events)
        events.append(f"start {number}")
        read = peaks(crops)
        return lambda: events.append(f"read {number}") or read()

    found = list(run_pictures(items(11), stages(forward=forward, in_flight=1)))
    assert found == [(i, [(i, 0)]) for i in range(11)]
    assert events == ["start 0", "start 1", "read 0", "start 2", "read 1", "read 2"]


@pytest.mark.parametrize("workers", [0, WORKERS], ids=["alone", "threads"])
@pytest.mark.parametrize(
    ("stage", "batch_size"),
    [
        ("read", 1),
        ("read", 4),
        ("find", 4),
        ("cut", 1),
        ("cut", 4),
        ("source", 1),
        ("source", 4),
        ("forward", 1),
    ],
)
def test_errors_reach_the_caller_in_their_place(stage, batch_size, workers):
    """What is no FastposeError is a bug and ends the run, after the results in front of it."""

    def breaking(name, work, number_of):
        def run(*given):
            if name == stage and number_of(given[0]) == 9:
                raise KeyError(f"a bug in {stage}")
            return work(*given)

        return run

    def source():
        yield from items(9)
        if stage == "source":
            raise KeyError("a bug in source")
        yield from items(30)[9:]

    broken = {
        "read": breaking("read", numbered, lambda item: item.index),
        "find": breaking("find", lambda item, image: people(1), lambda item: item.index),
        "cut": breaking("cut", cut_whole, lambda image: image[0, 0, 0]),
        "forward": breaking("forward", peaks, lambda crops: crops.pixels[0, 0, 0, 0]),
    }
    run = run_pictures(source(), stages(workers=workers, batch_size=batch_size, **broken))
    assert list(itertools.islice(run, 9)) == [(i, [(i, 0)]) for i in range(9)]
    with pytest.raises(KeyError, match=f"a bug in {stage}"):
        next(run)
    assert not our_threads()


@pytest.mark.parametrize("how", ["close", "drop", "throw"])
def test_stopping_early_ends_the_threads(how):
    closed = threading.Event()

    def source():
        try:
            yield from items(10_000)
        finally:
            closed.set()

    run = run_pictures(source(), stages())
    next(run)
    assert our_threads()
    if how == "close":
        run.close()
    elif how == "throw":
        with pytest.raises(KeyboardInterrupt):
            run.throw(KeyboardInterrupt())
    del run
    assert not our_threads()
    assert closed.is_set(), "the source is let go of"


def test_predictions_that_are_not_read_on(folder):
    results = Predictor(ChannelPeaks(), detector="whole", workers=2)(folder, stream=True)
    next(results)
    results.close()
    assert not our_threads()


def test_memory_that_is_used_again_for_the_next_picture():
    """A generator may fill one array over and over, as a video reader does."""
    buffer = np.zeros((64, 64, 3), np.uint8)

    def frames():
        for x in range(5, 60, 5):
            buffer[:] = 0
            cv2.circle(buffer, (x, 30), 3, (255, 255, 255), cv2.FILLED)
            yield buffer

    results = Predictor(ChannelPeaks(), detector="whole", flip_test=False, workers=WORKERS)(frames())
    for x, result in zip(range(5, 60, 5), results, strict=True):
        assert abs(result.keypoints.xy[0, :, 0].mean() - x) < 5


def test_only_reading_and_cutting_leave_the_callers_thread():
    where: dict[str, set[int]] = {}

    def noting(name, work):
        def run(*given):
            where.setdefault(name, set()).add(threading.get_ident())
            return work(*given)

        return run

    def source():
        for item in items(20):
            where.setdefault("source", set()).add(threading.get_ident())
            yield item

    works = {"read": numbered, "find": lambda item, image: people(1), "cut": cut_whole, "forward": peaks}
    list(run_pictures(source(), stages(**{name: noting(name, work) for name, work in works.items()})))
    own = {threading.get_ident()}
    assert where["source"] == where["find"] == where["forward"] == own
    assert where["read"].isdisjoint(own)
    assert where["cut"].isdisjoint(own)


def test_live_pictures_do_not_wait():
    asked = 0

    def source():
        nonlocal asked
        for item in items(5, live=True):
            asked += 1
            yield item

    for number, _ in enumerate(run_pictures(source(), stages(in_flight=1)), 1):
        assert asked == number


@pytest.mark.parametrize("setting", [-1, 1.5, True, "many", 1000])
def test_wrong_numbers_of_threads(setting):
    with pytest.raises(ConfigError, match="workers: expected 'auto'"):
        Predictor(ChannelPeaks(), workers=setting)


@pytest.mark.parametrize(
    ("cores", "device", "threads"),
    [(1, "cpu", 0), (2, "cpu", 1), (64, "cpu", 4), (64, "cuda", 16), (8, "cuda", 8)],
)
def test_threads_by_cores_and_device(monkeypatch, cores, device, threads):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)))
    assert reading_threads("auto", torch.device(device)) == threads
    assert reading_threads(7, torch.device(device)) == 7
