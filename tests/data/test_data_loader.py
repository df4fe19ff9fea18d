"""Batches: the same for every number of workers, and typed errors out of workers."""

import os
import signal
import subprocess
import sys
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from tiny_coco import write_coco

from fastpose.data import Augmentation, CropDataset, EpochSampler, make_loader, read_coco
from fastpose.data.loader import in_workers
from fastpose.data.sampler import count_decodes
from fastpose.errors import ConfigError, DataError, ImageError

SIZE = (48, 64)


@pytest.fixture
def coco(tmp_path):
    return partial(write_coco, tmp_path)


def batches(dataset, workers, epochs=2):
    sampler = EpochSampler(len(dataset), 3, shuffle=True, seed=5)
    loader = make_loader(dataset, sampler, workers=workers)
    found = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        found += list(loader)
    return found


def outcome(loader):
    """Kind and message of the error. Workers left to the garbage collector would take 5 s to end."""
    try:
        list(loader)
    except Exception as error:
        return type(error), str(error)
    finally:
        if loader.num_workers:
            loader._iterator._shutdown_workers()
    return None, ""


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_workers(coco, workers):
    dataset = CropDataset(read_coco(*coco(), aspect_ratio=0.75), input_size=SIZE, augmentation=Augmentation())
    alone, split = batches(dataset, 0), batches(dataset, workers)
    assert len(alone) == len(split) == 4
    for a, b in zip(alone, split, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(alone[0]["crop"], alone[2]["crop"])


def test_forms_of_a_batch(coco):
    dataset = CropDataset(read_coco(*coco(), aspect_ratio=0.75), input_size=SIZE)
    batch = batches(dataset, 0, epochs=1)[0]
    assert {key: (tuple(value.shape), value.dtype) for key, value in batch.items()} == {
        "crop": ((3, 64, 48, 3), torch.uint8),
        "joints": ((3, 17, 2), torch.float32),
        "visible": ((3, 17), torch.float32),
        "weight": ((3, 17), torch.float32),
        "center": ((3, 2), torch.float32),
        "scale": ((3, 2), torch.float32),
        "index": ((3,), torch.int64),
        "usable": ((3,), torch.bool),
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_error_reaches_the_caller_as_itself(coco, workers):
    paths = coco()
    (paths[1] / "1.jpg").unlink()
    dataset = CropDataset(read_coco(*paths, aspect_ratio=0.75), input_size=SIZE, on_bad="stop")
    kind, message = outcome(make_loader(dataset, EpochSampler(4, 2, shuffle=False), workers=workers))
    assert issubclass(kind, ImageError)
    assert message.endswith("1.jpg: no such image file")
    assert "Traceback" not in message


class KillsItsWorker(CropDataset):
    def __getitem__(self, key):
        os.kill(os.getpid(), signal.SIGKILL)


def test_killed_worker_is_a_typed_error(coco):
    dataset = KillsItsWorker(read_coco(*coco(), aspect_ratio=0.75))
    kind, message = outcome(make_loader(dataset, EpochSampler(4, 2, shuffle=False), workers=1))
    assert kind is DataError
    assert "data worker stopped: DataLoader worker" in message


class Buggy(CropDataset):
    def __getitem__(self, key):
        raise RuntimeError("a bug, not bad data")


@pytest.mark.parametrize("workers", [0, 1])
def test_bugs_are_not_dressed_up_as_data_errors(coco, workers):
    dataset = Buggy(read_coco(*coco(), aspect_ratio=0.75))
    kind, message = outcome(make_loader(dataset, EpochSampler(4, 2, shuffle=False), workers=workers))
    assert kind is RuntimeError
    assert "a bug" in message


class ReportsThreads(CropDataset):
    def __getitem__(self, key):
        sample = super().__getitem__(key)
        return {**sample, "threads": np.array([cv2.getNumThreads(), torch.get_num_threads()])}


def test_workers_use_one_thread(coco):
    before = cv2.getNumThreads(), torch.get_num_threads()
    batch = batches(ReportsThreads(read_coco(*coco(), aspect_ratio=0.75)), 1, epochs=1)[0]
    assert batch["threads"].tolist() == [[1, 1]] * 3
    assert (cv2.getNumThreads(), torch.get_num_threads()) == before


AFTER_OPENCV = """
import sys, cv2, numpy as np
from fastpose.data import CropDataset, EpochSampler, make_loader, read_coco
cv2.setNumThreads(4)
cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (9, 9), 3)
dataset = CropDataset(read_coco(*sys.argv[1:], aspect_ratio=0.75), input_size=(48, 64))
print(len(list(make_loader(dataset, EpochSampler(len(dataset), 3, shuffle=False), workers=1))))
print(cv2.getNumThreads())
"""


def test_workers_start_after_opencv_has_used_its_threads(coco):
    command = [sys.executable, "-c", AFTER_OPENCV, *map(str, coco())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["2", "4"], done.stderr


def test_global_random_state_is_left_alone(coco):
    dataset = CropDataset(read_coco(*coco(), aspect_ratio=0.75), input_size=SIZE, augmentation=Augmentation())
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    batches(dataset, 0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def rows(sampler):
    return [[row for _, row in batch] for batch in sampler]


def test_sampler_covers_every_row_once():
    sampler = EpochSampler(10, 4, shuffle=True, seed=3)
    assert len(sampler) == 3
    assert [len(batch) for batch in sampler] == [4, 4, 2]
    assert sorted(row for batch in rows(sampler) for row in batch) == list(range(10))
    assert len(EpochSampler(10, 4, shuffle=True, drop_last=True)) == 2
    assert rows(EpochSampler(5, 2, shuffle=False)) == [[0, 1], [2, 3], [4]]


def test_sampler_order_depends_on_seed_and_epoch():
    sampler = EpochSampler(50, 50, shuffle=True, seed=3)
    first = rows(sampler)
    assert rows(sampler) == first
    sampler.set_epoch(1)
    assert next(iter(sampler))[0][0] == 1
    assert rows(sampler) != first
    assert rows(EpochSampler(50, 50, shuffle=True, seed=4)) != first


def test_sampler_resumes_in_the_middle():
    sampler = EpochSampler(10, 3, shuffle=True, seed=3)
    sampler.set_epoch(2)
    whole = list(sampler)
    sampler.set_epoch(2, start_batch=2)
    assert list(sampler) == whole[2:]
    assert len(sampler) == 4
    sampler.set_epoch(2, start_batch=4)
    assert list(sampler) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: EpochSampler(0, 1, shuffle=False),
        lambda: EpochSampler(1, 0, shuffle=False),
        lambda: EpochSampler(3, 4, shuffle=False, drop_last=True),
        lambda: EpochSampler(3, 2, shuffle=False).set_epoch(0, start_batch=3),
        lambda: EpochSampler(3, 2, shuffle=False).set_epoch(-1),
        lambda: make_loader(None, None, workers=-1),
        lambda: EpochSampler(3, 2, shuffle=False, groups=np.zeros(4)),
        lambda: next(in_workers(None, [0], -1)),
    ],
    ids=["empty", "batch", "drop-last", "start", "epoch", "workers", "groups", "in-workers"],
)
def test_wrong_arguments_are_refused(make):
    with pytest.raises(ConfigError):
        make()


GROUPS = np.array([7, 3, 3, 9, 7, 3, 1, 9])


def test_groups_are_shuffled_and_stay_together():
    sampler = EpochSampler(8, 8, shuffle=True, seed=3, groups=GROUPS)
    orders = []
    for epoch in range(12):
        sampler.set_epoch(epoch)
        (order,) = rows(sampler)
        assert sorted(order) == list(range(8))
        assert (np.diff(GROUPS[order]) != 0).sum() == 3, "each group begins once"
        assert all(
            [i for i in order if GROUPS[i] == group] == sorted(np.flatnonzero(group == GROUPS))
            for group in GROUPS
        )
        orders.append(order)
    assert len(set(map(tuple, orders))) > 6
    assert rows(EpochSampler(8, 8, shuffle=False, groups=GROUPS)) == [[6, 1, 2, 5, 0, 4, 3, 7]]
    again = EpochSampler(8, 3, shuffle=True, seed=3, groups=GROUPS)
    again.set_epoch(11)
    assert [row for batch in rows(again) for row in batch] == orders[-1], "of the seed and epoch alone"


def test_grouped_order_resumes_in_the_middle():
    sampler = EpochSampler(8, 3, shuffle=True, seed=1, groups=GROUPS, drop_last=True)
    sampler.set_epoch(2)
    whole = list(sampler)
    assert [len(batch) for batch in whole] == [3, 3]
    sampler.set_epoch(2, start_batch=1)
    assert list(sampler) == whole[1:]


@pytest.mark.parametrize("grouped", [False, True], ids=["plain", "grouped"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_is_decoded_once_a_batch(coco, workers, grouped):
    table = read_coco(*coco(more_pictures), aspect_ratio=0.75)
    sampler = EpochSampler(len(table), 4, shuffle=True, seed=1, groups=table.image_index if grouped else None)
    expected = sum(len({table.image_index[row] for row in batch}) for batch in rows(sampler))
    assert count_decodes(sampler, table.image_index) == expected
    dataset = CountsDecodes(table, input_size=SIZE, augmentation=Augmentation())
    found = list(make_loader(dataset, sampler, workers=workers))
    # A worker, or the loading process, may still hold the last picture of its batch before.
    before = 0 if workers else expected - sum(int(batch["decoded"].sum()) for batch in found)
    assert 0 <= before < len(found)
    if workers:
        assert sum(int(batch["decoded"].sum()) for batch in found) <= expected
    assert [[int(i) for i in batch["index"]] for batch in found] == rows(sampler)


def more_pictures(content):
    """Three pictures of four persons each, not one after the other in the file."""
    first = content["annotations"][0]
    content["annotations"] = [{**first, "id": i, "image_id": 10 + i % 3} for i in range(12)]


class CountsDecodes(CropDataset):
    def __getitem__(self, key):
        before = self.decodes
        sample = super().__getitem__(key)
        return {**sample, "decoded": np.array(self.decodes - before)}


def test_grouping_saves_decodes(coco):
    table = read_coco(*coco(more_pictures), aspect_ratio=0.75)
    index = table.image_index
    plain = [count_decodes(EpochSampler(12, 4, shuffle=True, seed=seed), index) for seed in range(20)]
    grouped = [
        count_decodes(EpochSampler(12, 4, shuffle=True, seed=seed, groups=index), index) for seed in range(20)
    ]
    assert grouped == [3] * 20
    assert np.mean(plain) > 6
    assert count_decodes(EpochSampler(12, 5, shuffle=True, groups=index), index) == 5, (
        "a group may span two batches"
    )


class Squares(torch.utils.data.Dataset):
    def __getitem__(self, key):
        return DataError(f"{key} is wrong") if key == 5 else (key * key, os.getpid())


class KillsItself(torch.utils.data.Dataset):
    def __getitem__(self, key):
        os.kill(os.getpid(), signal.SIGKILL)


def test_killed_helper_is_a_typed_error():
    with pytest.raises(DataError, match="data worker stopped: DataLoader worker"):
        list(in_workers(KillsItself(), [0, 1], 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_work_is_shared_out_and_comes_in_order(workers):
    results = list(in_workers(Squares(), range(5), workers))
    assert [square for square, _ in results] == [0, 1, 4, 9, 16]
    processes = {process for _, process in results}
    assert (os.getpid() in processes) == (workers == 0)
    assert len(processes) == max(workers, 1)
    with pytest.raises(DataError, match="5 is wrong"):
        list(in_workers(Squares(), [1, 5], workers))
