"""Building a crop cache: the same files whatever happens on the way."""

import json
import os
import resource
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from cache_cases import AUGMENTATION, contents, drawn, figures, prepare
from tiny_coco import write_coco

from fastpose.data import read_coco
from fastpose.data.crop_cache import CropCache
from fastpose.data.encode import Encoding
from fastpose.errors import ConfigError, DataError, ImageError, OutputError


@pytest.fixture(scope="module")
def table():
    return figures()


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory):
    """A cache written in one go, and its files."""
    folder = tmp_path_factory.mktemp("caches") / "whole"
    prepare(table, folder)
    return folder, contents(folder)


@contextmanager
def one_opencv_thread():
    """A child that inherits OpenCV's pool of threads would hang."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


@pytest.fixture
def shm():
    """A folder in memory where there is one: a killed process loses nothing that it has written, flushed or
    not, and a disk takes most of the time. And OpenCV without threads, for the forked children's sake."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder, one_opencv_thread():
        yield Path(folder)


def in_child(work):
    """The id of a forked process that runs `work` and ends with 0, or 3 and no message for an OutputError."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except OutputError:
        code = 3
    finally:
        os._exit(code)


def test_files_of_a_finished_cache(finished, table):
    folder, files = finished
    shards = sorted(name for name in files if name.startswith("shard_"))
    assert shards == [f"shard_{n:05d}.bin" for n in range(len(shards))]
    assert len(shards) > 3
    assert set(files) == {"manifest.json", "index.npy", *shards}
    manifest = json.loads(files["manifest.json"])
    assert manifest["recipe"]["persons"] == len(table)
    assert manifest["recipe"]["reach"]["rotation_degrees"] == 60
    assert manifest["pictures"] == len(np.unique(table.image_index))
    assert [shard["bytes"] for shard in manifest["shards"]] == [len(files[name]) for name in shards]
    CropCache(folder).verify()


def test_regions_hold_the_pictures_own_pixels(finished, table):
    cache = CropCache(finished[0])
    inside = 0
    for person in range(len(table)):
        region = cache.read(person, "any")
        picture = table.images.read(str(table.file_names[table.image_index[person]]))
        assert region.picture == picture.shape[1::-1]
        x, y = region.corner
        height, width = region.pixels.shape[:2]
        assert np.array_equal(region.pixels, picture[y : y + height, x : x + width])
        assert x % 16 == y % 16 == 0
        inside += (x, y) != (0, 0) and height * width < 0.7 * picture[..., 0].size
    assert inside > len(table) / 4, "most regions should be parts"


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_byte(finished, table, tmp_path, workers):
    prepare(table, tmp_path / "c", workers=workers)
    assert contents(tmp_path / "c") == finished[1]


def test_each_picture_is_decoded_once_and_counted(table, tmp_path, monkeypatch):
    names, told = [], []
    read = type(table.images).read
    monkeypatch.setattr(
        type(table.images), "read", lambda self, name: (names.append(name), read(self, name))[1]
    )
    prepare(table, tmp_path / "c", advance=told.append)
    pictures = len(np.unique(table.image_index))
    assert len(names) == len(set(names)) == pictures == sum(told)


def test_a_finished_cache_is_left_alone(finished, table, monkeypatch):
    folder, files = finished
    monkeypatch.setattr(type(table.images), "read", None)
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(prepare(table, folder)) == len(table)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    assert contents(folder) == files


class Killer:
    """Kills the process just before (even) or just after (odd) the n-th call that the disk notices."""

    def __init__(self, moment):
        self.left = moment

    def watch(self, call):
        def watched(*args, **options):
            self.tick()
            result = call(*args, **options)
            self.tick()
            return result

        return watched

    def tick(self):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def test_killed_before_and_after_every_flush_rename_and_delete(table, shm):
    table, moment, survived = drawn(table), 0, False
    prepare(table, shm / "whole", shard_bytes=200_000)
    expected = contents(shm / "whole")
    assert "shard_00001.bin" in expected

    def work():
        killer = Killer(moment)
        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, killer.watch(getattr(os, name)))
        prepare(table, shm / "c", shard_bytes=200_000)

    while not survived:
        status = os.waitpid(in_child(work), 0)[1]
        survived = status == 0
        assert survived or os.WTERMSIG(status) == signal.SIGKILL
        check_cut_off(shm / "c")
        prepare(table, shm / "c", shard_bytes=200_000)
        assert contents(shm / "c") == expected, f"killed at {moment}"
        shutil.rmtree(shm / "c")
        moment += 1
    assert moment > 50


def check_cut_off(folder):
    """A cache is whole, or says that it is not."""
    if (folder / "manifest.json").is_file():
        CropCache(folder).verify()
    else:
        with pytest.raises(DataError, match="fastpose prepare"):
            CropCache(folder)


@pytest.mark.parametrize("count", [16, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_random_moments(table, shm, count):
    table, rng, kills, rounds = drawn(table), np.random.default_rng(0), 0, 0
    started = time.perf_counter()
    os.waitpid(in_child(lambda: prepare(table, shm / "whole")), 0)
    seconds, expected = time.perf_counter() - started, contents(shm / "whole")
    while kills < count:
        for _ in range(4):
            child = in_child(lambda: prepare(table, shm / "c"))
            time.sleep(rng.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
            check_cut_off(shm / "c")
        prepare(table, shm / "c")
        assert contents(shm / "c") == expected
        shutil.rmtree(shm / "c")
        rounds += 1
        assert rounds < 3 * count, "the kills come too late"


def test_goes_on_after_the_last_whole_shard(table, finished, tmp_path, monkeypatch):
    folder, told = tmp_path / "c", []
    pictures = len(np.unique(table.image_index))

    def stop(count):
        told.append(count)
        if sum(told) == pictures - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(table, folder, advance=stop)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard_*.bin")}
    (folder / "shard_00099.bin").write_bytes(b"left over")
    damaged = sorted(before)[-1]
    (folder / damaged).write_bytes(b"\0" * (folder / damaged).stat().st_size)
    told.clear()
    prepare(table, folder, advance=told.append)
    assert told[0] > 1, "whole shards are not written again"
    assert sum(told) == pictures
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard_*.bin")}
    assert {name for name in before if after[name] != before[name]} == {damaged}
    assert contents(folder) == finished[1]


def test_another_recipe_is_refused_by_name(table, finished):
    with pytest.raises(ConfigError, match=r'kind "raw", here "jpeg".*choose another folder'):
        prepare(table, finished[0], kind="jpeg")
    with pytest.raises(ConfigError, match=r"table .*persons|persons .*table"):
        prepare(figures(5), finished[0])
    assert contents(finished[0]) == finished[1]


def test_begun_by_another_recipe_is_refused(table, tmp_path):
    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(table, tmp_path / "c", advance=stop)
    with pytest.raises(ConfigError, match="max_side 0, here 40"):
        prepare(table, tmp_path / "c", max_side=40)
    (tmp_path / "c" / "recipe.json").write_text("{")
    with pytest.raises(DataError, match=r"recipe\.json.*begin again"):
        prepare(table, tmp_path / "c")


def test_a_folder_with_other_files_is_not_written_to(table, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(OutputError, match="no crop cache"):
        prepare(table, tmp_path)
    assert contents(tmp_path) == {"photo.jpg": b"mine"}


def test_two_at_once_are_refused(table, shm):
    ready, go_on = os.pipe()

    def hold(count):
        os.write(go_on, b"x")
        time.sleep(60)

    child = in_child(lambda: prepare(table, shm / "c", advance=hold))
    try:
        os.read(ready, 1)
        with pytest.raises(OutputError, match="another `fastpose prepare`"):
            prepare(table, shm / "c")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert len(prepare(table, shm / "c")) == len(table)


def test_a_full_disk_is_a_typed_error_and_no_loss(table, finished, shm):
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
        prepare(table, shm / "c")

    assert os.waitstatus_to_exitcode(os.waitpid(in_child(work), 0)[1]) == 3
    assert not (shm / "c" / "manifest.json").exists()
    prepare(table, shm / "c")
    assert contents(shm / "c") == finished[1]


def test_unreadable_pictures_are_left_out_and_named(tmp_path):
    paths = write_coco(tmp_path)
    (paths[1] / "0.jpg").write_bytes(b"\xff\xd8 broken")
    table = read_coco(*paths, aspect_ratio=0.75)
    cache = prepare(table, tmp_path / "c")
    lost = np.flatnonzero(table.file_names[table.image_index] == "0.jpg").tolist()
    assert len(lost) == 2
    assert set(cache.manifest["unreadable"]) == {str(person) for person in lost}
    assert all("0.jpg: not an image" in reason for reason in cache.manifest["unreadable"].values())
    with pytest.raises(ImageError, match=r"0\.jpg: person \d .*unreadable"):
        cache.read(lost[0], "0.jpg")
    for workers in (0, 1):
        with pytest.raises(ImageError, match=r"0\.jpg: not an image"):
            prepare(table, tmp_path / f"stop{workers}", on_bad="stop", workers=workers)


def test_large_regions_are_reduced_by_a_whole_factor(table, finished, tmp_path):
    cache, whole = prepare(table, tmp_path / "c", max_side=50), CropCache(finished[0])
    factors = cache.rows["factor"]
    longest = np.maximum(whole.rows["width"], whole.rows["height"])
    assert np.array_equal(factors, np.ceil(longest / 50))
    assert cache.manifest["reduced"] == (factors > 1).sum() > 0
    for person in range(len(table)):
        assert max(cache.read(person, "any").pixels.shape) <= 50


@pytest.mark.parametrize(
    "make",
    [
        lambda table, folder: Encoding("gif"),
        lambda table, folder: Encoding(quality=0),
        lambda table, folder: Encoding(max_side=-1),
        lambda table, folder: prepare(table, folder, shard_bytes=0),
        lambda table, folder: prepare(table, folder, workers=-1),
    ],
    ids=["kind", "quality", "max-side", "shard-bytes", "workers"],
)
def test_wrong_arguments_are_refused(table, tmp_path, make):
    with pytest.raises(ConfigError):
        make(table, tmp_path / "c")


def test_recipe_tells_what_the_augmentation_reaches(finished):
    told = json.loads(finished[1]["manifest.json"])["recipe"]["reach"]
    assert told == {
        "aspect_ratio": 0.75,
        "scale_factor": AUGMENTATION.scale_factor,
        "rotation_degrees": 60,
        "half_body_joints": AUGMENTATION.half_body_joints,
    }
