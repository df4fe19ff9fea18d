"""Batches out of workers when shared memory is short: the same batches, one warning, no lost batch."""

import logging
import math
import os

import numpy as np
import pytest
import torch
from tiny_coco import write_coco

from fastpose.data import Augmentation, CropDataset, EpochSampler, make_loader, read_coco
from fastpose.data import handover as handover_module
from fastpose.data import loader as loader_module
from fastpose.data.handover import Piped, hand_over, join_samples, shared_room
from fastpose.errors import DataError, ImageError

SIZE = (48, 64)
NO_SPACE = "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"


@pytest.fixture
def table(tmp_path):
    return read_coco(*write_coco(tmp_path), aspect_ratio=0.75)


@pytest.fixture
def in_worker(monkeypatch):
    monkeypatch.setattr(handover_module, "get_worker_info", lambda: "a worker")


def samples_of(table, **options):
    dataset = CropDataset(table, input_size=SIZE, augmentation=Augmentation(), **options)
    return [dataset[1, row] for row in range(3)]


def fails_with(message):
    def share(tensor):
        raise RuntimeError(message)

    return share


@pytest.mark.parametrize("parts", [False, True], ids=["crops", "parts"])
def test_a_worker_hands_over_shared_tensors(table, in_worker, parts):
    samples = samples_of(table, parts=parts)
    batch, expected = hand_over(samples), join_samples(samples)
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[name], expected[name]) for name in expected)
    assert all(tensor.is_shared() for tensor in batch.values())


def test_an_error_stays_an_error(in_worker):
    error = ImageError("x.jpg: gone")
    assert hand_over(error) is error


@pytest.mark.parametrize("message", [NO_SPACE, "Too many open files (24)"], ids=["space", "files"])
def test_what_finds_no_room_goes_by_value(table, in_worker, monkeypatch, message):
    samples = samples_of(table)
    monkeypatch.setattr(torch.Tensor, "share_memory_", fails_with(message))
    found = hand_over(samples)
    assert isinstance(found, Piped)
    assert found.reason == message
    assert found.nbytes == sum(array.nbytes for sample in samples for array in sample.values())


def test_other_errors_are_not_taken_for_it(table, in_worker, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "share_memory_", fails_with("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        hand_over(samples_of(table))


@pytest.mark.parametrize("batches", [1.9, 2.1])
def test_memory_that_is_nearly_full_is_not_tried(table, in_worker, monkeypatch, batches):
    samples = samples_of(table)
    size = sum(array.nbytes for sample in samples for array in sample.values())
    monkeypatch.setattr(handover_module, "shared_room", lambda: batches * size)
    assert isinstance(hand_over(samples), Piped) == (batches < 2)


def test_room_is_that_of_the_file_system(monkeypatch):
    state = os.statvfs("/dev/shm")
    assert shared_room() <= state.f_blocks * state.f_frsize
    monkeypatch.setattr(handover_module, "SHARED", "/nowhere")
    assert shared_room() == math.inf


@pytest.mark.parametrize("parts", [False, True], ids=["crops", "parts"])
def test_batches_through_pipes_are_the_same(table, monkeypatch, caplog, parts):
    def batches(workers):
        dataset = CropDataset(table, input_size=SIZE, augmentation=Augmentation(), parts=parts)
        sampler = EpochSampler(len(dataset), 2, shuffle=True, seed=5)
        loader = make_loader(dataset, sampler, workers=workers)
        found = list(loader)
        sampler.set_epoch(1)
        return found + list(loader)

    expected = batches(0)
    monkeypatch.setattr(handover_module, "shared_room", lambda: 0)
    with caplog.at_level(logging.WARNING, "fastpose.data"):
        found = batches(2)
    assert len(found) == len(expected) == 4
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
        a["weight"][0] = 7  # not memory that nobody may write to
    (record,) = caplog.records
    assert "no room in shared memory (0 KB are free)" in record.getMessage()
    assert "Enlarge /dev/shm to 1 MB or more (docker: --shm-size)" in record.getMessage()


def test_no_room_for_the_queues_is_told(table, monkeypatch):
    monkeypatch.setattr(loader_module, "shared_room", lambda: 100_000)
    dataset = CropDataset(table, input_size=SIZE)
    assert len(list(make_loader(dataset, EpochSampler(4, 2, shuffle=False), workers=1))) == 2
    with pytest.raises(DataError, match=r"/dev/shm is full, .* queues of 2 workers .*data.workers=0"):
        list(make_loader(dataset, EpochSampler(4, 2, shuffle=False), workers=2))


def test_one_array_of_a_field_is_one_row(table):
    samples = samples_of(table)
    batch = join_samples(samples)
    assert all(np.array_equal(batch[name][1], samples[1][name]) for name in samples[0])
