"""Samples in place of a batch that cannot be read: drawn anew every time, from the step's number alone."""

import pytest
import torch
from tiny_coco import write_coco

from fastpose.data import Augmentation, CropDataset, read_coco
from fastpose.data.substitutes import TRIES, Substitutes
from fastpose.errors import DataError

SIZE = (48, 64)


def more_persons(content):
    """Two pictures of ten persons each."""
    first = content["annotations"][0]
    content["annotations"] = [{**first, "id": i, "image_id": 10 + i % 2} for i in range(20)]


@pytest.fixture
def files(tmp_path):
    return write_coco(tmp_path, more_persons)


def make(files, *, seed=3, rank=0, **options):
    table = read_coco(*files, aspect_ratio=0.75)
    dataset = CropDataset(table, input_size=SIZE, augmentation=Augmentation(), **options)
    return Substitutes(dataset, seed=seed, rank=rank)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_only_readable_rows_come_each_once(files):
    (files[1] / "0.jpg").write_bytes(b"\xff\xd8 broken")
    table = read_coco(*files, aspect_ratio=0.75)
    for step in range(10):
        batch = make(files)(6, 1, step)
        assert batch["usable"].all()
        rows = batch["index"].tolist()
        assert len(set(rows)) == 6
        assert set(table.file_names[table.image_index[rows]]) == {"1.jpg"}


def test_a_batch_is_what_the_loader_would_make_of_its_rows(files):
    substitutes = make(files)
    batch = substitutes(4, 2, 0)
    for place, row in enumerate(batch["index"].tolist()):
        sample = substitutes.dataset[2, row]
        assert all(torch.equal(batch[name][place], torch.as_tensor(sample[name])) for name in sample)


def test_history_changes_nothing_and_place_does(files):
    used = make(files)
    places = [(epoch, step) for epoch in range(3) for step in range(4)]
    before = {place: used(3, *place) for place in places}
    for place in reversed(places):
        assert same(used(3, *place), before[place])
        assert same(make(files)(3, *place), before[place])
    orders = {tuple(batch["index"].tolist()) for batch in before.values()}
    assert len(orders) > 8
    others = [make(files, seed=4)(3, 0, 0), make(files, rank=1)(3, 0, 0)]
    assert not any(same(other, before[0, 0]) for other in others)


def test_few_readable_samples_come_again(files):
    (files[1] / "0.jpg").write_bytes(b"\xff\xd8 broken")
    batch = make(files)(25, 0, 0)
    assert batch["usable"].all()
    assert len(batch["index"]) == 25
    assert len(set(batch["index"].tolist())) == 10


def test_parts_of_pictures_are_joined_as_such(files):
    crops, parts = make(files)(3, 0, 0), make(files, parts=True)(3, 0, 0)
    assert torch.equal(crops["index"], parts["index"])
    assert parts["pixels"].ndim == 1
    assert len(parts["offsets"]) == 3


class Unreadable(torch.utils.data.Dataset):
    asked = 0

    def __len__(self):
        return 10 * TRIES

    def __getitem__(self, key):
        self.asked += 1
        return {"usable": False}


def test_data_without_a_readable_picture_is_given_up(files):
    for name in ("0.jpg", "1.jpg"):
        (files[1] / name).write_bytes(b"\xff\xd8 broken")
    with pytest.raises(DataError, match=r"not one of 20 pictures .* `fastpose check`"):
        make(files)(4, 0, 0)
    large = Unreadable()
    with pytest.raises(DataError, match=f"not one of {TRIES} pictures"):
        Substitutes(large, seed=0, rank=0)(4, 0, 0)
    assert large.asked == TRIES
