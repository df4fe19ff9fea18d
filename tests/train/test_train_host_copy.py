"""State on the host: the values of the moment, in the layout they had."""

import pytest
import torch

from fastpose.train.saving.host_copy import HostCopier, map_tensors, pack, unpack
from fastpose.train.saving.snapshot import take_snapshot

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

TENSORS = {
    "vector": torch.arange(5.0),
    "scalar": torch.tensor(3.0),
    "empty": torch.empty(0, 3),
    "channels-last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "transposed": torch.randn(3, 4).T,
    "expanded": torch.randn(3, 1).expand(3, 4),
    "offset": torch.randn(10)[3:7],
    "one-by-one": torch.randn(6, 4, 1, 1).contiguous(memory_format=torch.channels_last),
}


def test_packed_tensors_come_out_as_they_were():
    flat, forms = pack(list(TENSORS.values()))
    assert len(flat) == sum(tensor.numel() for tensor in TENSORS.values())
    whole = torch.cat([torch.zeros(7), flat])[7:]
    for (name, tensor), found in zip(TENSORS.items(), unpack(whole, forms), strict=True):
        assert torch.equal(found, tensor), name
    views = dict(zip(TENSORS, unpack(flat, forms), strict=True))
    assert views["channels-last"].stride() == TENSORS["channels-last"].stride()
    assert views["channels-last"].untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()


def test_copy_keeps_the_tree_and_the_moment():
    tree = {"a": [torch.ones(2), 3, None], "b": (torch.zeros(()), "text"), 7: {"c": torch.eye(2)}}
    copy, wait = HostCopier()(tree)
    wait()
    map_tensors(tree, lambda tensor: tensor.fill_(9))
    assert copy["a"][1:] == [3, None]
    assert copy["b"][1] == "text"
    assert torch.equal(copy["a"][0], torch.ones(2))
    assert copy["b"][0].item() == 0
    assert torch.equal(copy[7]["c"], torch.eye(2))


def test_views_are_saved_without_the_memory_around_them():
    from tiny_state import trained

    from fastpose.train.saving.checkpoint import Progress

    model, optimizer = trained()
    flat = torch.arange(1000.0)
    snapshot = take_snapshot(model, optimizer, None, Progress())
    snapshot.training["extra"]["part"] = flat[10:12]
    part = snapshot.owned_training()["extra"]["part"]
    assert torch.equal(part, flat[10:12])
    assert part.untyped_storage().nbytes() == 8


@pytest.mark.gpu
@needs_cuda
def test_device_tensors_are_taken_as_they_are_behind_the_work_begun():
    device = torch.device("cuda")
    tree = {name: tensor.to(device) for name, tensor in TENSORS.items()}
    tree |= {"count": torch.tensor(3, device=device), "host": torch.ones(3)}
    value = torch.zeros(1 << 24, device=device)
    copier = HostCopier()
    for round_ in range(3):
        torch.cuda._sleep(50_000_000)
        value.fill_(round_)
        copy, wait = copier({**tree, "late": value})
        value.fill_(-1.0)  # the next step
        wait()
        assert copy["late"].is_pinned()
        assert copy["late"].eq(round_).all()
        for name, tensor in tree.items():
            assert copy[name].device.type == "cpu"
            assert torch.equal(copy[name], tensor.cpu()), name
    torch.cuda.synchronize()


@pytest.mark.gpu
@needs_cuda
def test_the_host_does_not_wait_for_the_device():
    value, finished = torch.zeros(1 << 20, device="cuda"), torch.cuda.Event()
    copier = HostCopier()
    copier([value])[1]()  # takes the pinned memory
    torch.cuda._sleep(2_000_000_000)
    finished.record()
    _, wait = copier([value])
    assert not finished.query(), "the copy was only asked for"
    wait()
    assert finished.query()
