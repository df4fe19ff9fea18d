"""Training from a crop cache: the same samples, refused where it does not fit, and no damage unseen."""

import copy
import json
import logging
from multiprocessing.reduction import ForkingPickler

import cv2
import numpy as np
import pytest
import torch
from cache_cases import ASPECT, AUGMENTATION, SIZE, figures, prepare, same
from conftest import shared_path
from tiny_coco import write_coco

from fastpose.data import (
    Augmentation,
    CropDataset,
    EpochSampler,
    coco_layout,
    make_loader,
    read_coco,
    read_mpii,
)
from fastpose.data.crop_cache import CropCache, table_digest
from fastpose.errors import ConfigError, DataError, ImageError


@pytest.fixture(scope="module")
def table():
    return figures()


@pytest.fixture(scope="module")
def cache(table, tmp_path_factory):
    return prepare(table, tmp_path_factory.mktemp("caches") / "raw")


def datasets(table, cache, **options):
    options = {"input_size": SIZE, "augmentation": AUGMENTATION, "seed": 3, **options}
    return CropDataset(table, **options), CropDataset(table, crops=cache, **options)


def psnr(plain, cached, epochs=3):
    """Least and mean peak signal-to-noise ratio of crops, in dB; joints must be equal."""
    errors = []
    for epoch in range(epochs):
        for i in range(len(plain)):
            a, b = plain[epoch, i], cached[epoch, i]
            assert same({**a, "crop": 0}, {**b, "crop": 0})
            errors.append(((a["crop"].astype(float) - b["crop"]) ** 2).mean())
    return tuple(10 * np.log10(255**2 / error) for error in (max(errors), np.mean(errors)))


@pytest.mark.parametrize("kind", ["raw", "png"])
def test_a_lossless_cache_changes_no_byte(table, tmp_path, kind):
    plain, cached = datasets(table, prepare(table, tmp_path / "c", kind))
    flips = 0
    for epoch in range(6):
        for i in range(len(table)):
            a, b = plain[epoch, i], cached[epoch, i]
            assert same(a, b)
            flips += a["center"][0] != table.center[i, 0]
    assert flips > len(table)


def test_smaller_augmentation_and_other_size_of_the_same_shape_fit(table, cache):
    small = Augmentation(scale_factor=0.1, rotation_factor=5, half_body_prob=0)
    for augmentation in (None, small):
        plain, cached = datasets(
            table, cache, augmentation=augmentation, input_size=(96, 128), channel_order="bgr"
        )
        assert all(same(plain[i], cached[i]) for i in range(len(table)))


@pytest.mark.parametrize("layout", ["folder", "zip"])
def test_coco_files(tmp_path, layout):
    annotations, images = write_coco(tmp_path)
    if layout == "zip":
        import shutil

        images = shutil.make_archive(str(images), "zip", images)
    table = read_coco(annotations, images, aspect_ratio=ASPECT)
    plain, cached = datasets(table, prepare(table, tmp_path / "c", workers=1))
    assert all(same(plain[epoch, i], cached[epoch, i]) for epoch in range(5) for i in range(len(table)))


@pytest.mark.parametrize("sample", ["coco_mini", "mpii_sample", "crowdpose_sample"])
def test_photographs(tmp_path, sample):
    root = shared_path("data", sample)
    if sample == "coco_mini":
        table = read_coco(*coco_layout(root, "train2017"), aspect_ratio=ASPECT)
    elif sample == "mpii_sample":
        table = read_mpii(root, "train", aspect_ratio=ASPECT)
    else:
        table = read_coco(root / "annotations/test_crowdpose.json", root / "images", aspect_ratio=ASPECT)
    augmentation = Augmentation()
    lossless = prepare(table, tmp_path / "raw", augmentation=augmentation, shard_bytes=1 << 20)
    plain, cached = datasets(table, lossless, augmentation=augmentation, input_size=(192, 256))
    assert all(same(plain[2, i], cached[2, i]) for i in range(len(table)))
    jpeg = prepare(table, tmp_path / "jpeg", "jpeg", augmentation=augmentation)
    least, mean = psnr(*datasets(table, jpeg, augmentation=augmentation, input_size=(192, 256)), epochs=1)
    assert least > 40
    assert mean > 44


def test_jpeg_keeps_joints_and_nearly_the_pixels(table, tmp_path):
    least, mean = psnr(*datasets(table, prepare(table, tmp_path / "c", "jpeg")))
    assert least > 38
    assert mean > 42


def test_reduced_regions_keep_joints_and_roughly_the_pixels(table, tmp_path):
    reduced = prepare(table, tmp_path / "c", "raw", max_side=100)
    assert (reduced.rows["factor"] == 2).any()
    least, mean = psnr(*datasets(table, reduced))
    assert least > 20
    assert mean > 26


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_workers(table, cache, workers):
    def batches(workers, dataset):
        sampler = EpochSampler(len(dataset), 5, shuffle=True, seed=5, groups=table.image_index)
        sampler.set_epoch(1)
        return list(make_loader(dataset, sampler, workers=workers))

    plain, cached = datasets(table, cache)
    alone, split = batches(0, plain), batches(workers, cached)
    assert len(alone) == len(split) > 2
    for a, b in zip(alone, split, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


class ReportsThreads(CropDataset):
    def __getitem__(self, key):
        sample = super().__getitem__(key)
        return {**sample, "threads": np.array([cv2.getNumThreads(), torch.get_num_threads()])}


def test_workers_use_one_thread(table, cache):
    dataset = ReportsThreads(table, input_size=SIZE, augmentation=AUGMENTATION, crops=cache)
    loader = make_loader(dataset, EpochSampler(4, 2, shuffle=False), workers=2)
    assert [batch["threads"].tolist() for batch in loader] == [[[1, 1]] * 2] * 2


def test_decoded_regions_are_kept_within_cache_mb(table, cache):
    dataset = datasets(table, cache, cache_mb=64)[1]
    first = [dataset[0, i] for i in range(len(table))]
    assert dataset.decodes == len(table)
    assert all(same(dataset[0, i], first[i]) for i in range(len(table)))
    assert dataset.decodes == len(table)


def test_survives_pickling_and_copies(table, cache):
    dataset = datasets(table, cache)[1]
    sample = dataset[1, 2]
    for other in (ForkingPickler.loads(ForkingPickler.dumps(cache)), copy.deepcopy(cache)):
        assert other._files == {}
        assert same(datasets(table, other)[1][1, 2], sample)


def test_shards_are_closed_with_the_cache(table, cache):
    import os

    other = CropCache(cache.folder)
    other.read(0, "any")
    (handle,) = other._files.values()
    assert os.fstat(handle).st_size > 0
    del other
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


@pytest.fixture
def copied(cache, tmp_path):
    """A copy that a test may damage."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in cache.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def flip_byte(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_flipped_byte_is_skipped_or_stops_with_the_name_of_the_sample(table, copied, caplog):
    person = 3
    row = CropCache(copied).rows[person]
    flip_byte(copied / f"shard_{row['shard']:05d}.bin", int(row["offset"]) + int(row["length"]) // 2)
    skipping = datasets(table, CropCache(copied))[1]
    with caplog.at_level(logging.WARNING, "fastpose.data"):
        usable = [bool(skipping[epoch, i]["usable"]) for epoch in range(2) for i in range(len(table))]
    assert usable == [i != person for i in range(len(table))] * 2
    (record,) = caplog.records
    name = str(table.file_names[table.image_index[person]])
    assert f"{name}: person 3 in {copied}" in record.getMessage()
    assert "checksum differs" in record.getMessage()
    stopping = datasets(table, CropCache(copied), on_bad="stop")[1]
    loader = make_loader(stopping, EpochSampler(len(table), 2, shuffle=False), workers=1)
    with pytest.raises(ImageError, match=f"{name}: person 3 .*checksum"):
        list(loader)
    loader._iterator._shutdown_workers()
    with pytest.raises(DataError, match=f"shard_{row['shard']:05d}.bin: its SHA-256"):
        CropCache(copied).verify()


def test_every_flipped_byte_is_found(table, copied):
    rng = np.random.default_rng(0)
    rows = CropCache(copied).rows
    for person in range(0, len(table), 3):
        path = copied / f"shard_{rows[person]['shard']:05d}.bin"
        at = int(rows[person]["offset"]) + int(rng.integers(rows[person]["length"]))
        flip_byte(path, at)
        with pytest.raises(ImageError, match="checksum"):
            CropCache(copied).read(person, "any")
        flip_byte(path, at)
    CropCache(copied).verify()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "no finished crop cache"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json: damaged"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json: damaged"),
        (lambda folder: flip_byte(folder / "index.npy", 300), "index.npy: its checksum"),
        (lambda folder: (folder / "index.npy").unlink(), "damaged"),
        (lambda folder: (folder / "shard_00001.bin").write_bytes(b"x"), "shard_00001.bin: 1 bytes"),
        (lambda folder: (folder / "shard_00001.bin").unlink(), "damaged"),
    ],
    ids=["unfinished", "cut-json", "other-json", "index", "no-index", "short-shard", "no-shard"],
)
def test_damage_is_seen_when_opened(copied, damage, message):
    damage(copied)
    with pytest.raises(DataError, match=message):
        CropCache(copied)


def test_another_version_is_refused(copied):
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(DataError, match="format 99, this fastpose reads 1"):
        CropCache(copied)


@pytest.mark.parametrize(
    "larger",
    [{"scale_factor": 0.6}, {"rotation_factor": 45}, {"half_body_joints": 0}],
    ids=lambda larger: next(iter(larger)),
)
def test_larger_augmentation_is_refused(table, tmp_path, larger):
    reaching = copy.deepcopy(table)
    reaching.visible[:] = 1
    reaching.joints[:, 9, 0] += 100  # an arm, which only a half body brings into the crop
    base = {"scale_factor": 0.1, "rotation_factor": 10, "half_body_joints": 17}
    cache = prepare(reaching, tmp_path / "c", augmentation=Augmentation(**base))
    with pytest.raises(ConfigError, match=r"\"scale_factor\": 0.1.* persons reach beyond"):
        datasets(reaching, cache, augmentation=Augmentation(**{**base, **larger}))


def test_other_persons_are_refused(table, cache):
    with pytest.raises(ConfigError, match=f"{len(table)} persons, the configuration's data has"):
        datasets(figures(5), cache)


def test_digest_sees_every_change_that_a_crop_would(table):
    digests = {table_digest(table), table_digest(figures(seed=1)), table_digest(figures(13))}
    for name in ("joints", "visible", "center", "scale"):
        other = copy.deepcopy(table)
        getattr(other, name)[2, 0] += 1
        digests.add(table_digest(other))
    other = copy.deepcopy(table)
    other.file_names[1] = "other.jpg"
    digests.add(table_digest(other))
    assert len(digests) == 8
    assert table_digest(figures()) == table_digest(table)
