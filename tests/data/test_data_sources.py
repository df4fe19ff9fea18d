"""A crop cache notices pictures that were replaced under their names, and does not mind copies of them."""

import json
import logging
import os
import shutil

import cv2
import numpy as np
import pytest
from cache_cases import ASPECT, AUGMENTATION, SIZE, contents, figures, prepare, same
from tiny_coco import picture, write_coco

from fastpose.data import CropDataset, read_coco
from fastpose.data import sources as sources_module
from fastpose.data.crop_cache import ROW, SOURCE, CropCache
from fastpose.data.sources import UNKNOWN, stamp
from fastpose.errors import ConfigError
from fastpose.files import sha256


@pytest.fixture
def files(tmp_path):
    return write_coco(tmp_path)


def table_of(files, images=None):
    return read_coco(files[0], images or files[1], aspect_ratio=ASPECT)


def fits(cache, table):
    CropDataset(table, input_size=SIZE, augmentation=AUGMENTATION, crops=CropCache(cache.folder))
    return True


def put(path, data, seconds=10):
    """Other bytes under a name, written so many seconds later."""
    time = path.stat().st_mtime_ns + seconds * 10**9
    path.write_bytes(data)
    os.utime(path, ns=(time, time))


def zipped(folder, name):
    return shutil.make_archive(str(folder.parent / name), "zip", folder)


def test_what_is_kept_of_a_file(files, tmp_path):
    cache = prepare(table_of(files), tmp_path / "c")
    path, table = files[1] / "1.jpg", table_of(files)
    (row,) = cache.rows[table.file_names[table.image_index] == "1.jpg"][SOURCE].tolist()
    assert row[:2] == (path.stat().st_size, path.stat().st_mtime_ns)
    assert stamp(table.images, "1.jpg") == (*row[:2], 0)
    archived = read_coco(files[0], zipped(files[1], "tiny"), aspect_ratio=ASPECT)
    assert stamp(archived.images, "1.jpg") == (row[0], row[2], 0), "a zip keeps the same CRC-32"


@pytest.mark.parametrize("same_size", [False, True], ids=["other-size", "same-size"])
def test_a_replaced_picture_is_refused_by_name(files, tmp_path, same_size):
    cache = prepare(table_of(files), tmp_path / "c")
    assert fits(cache, table_of(files))
    path = files[1] / "0.jpg"
    data = bytearray(path.read_bytes())
    put(path, bytes(data[:-20]) + bytes(20) if same_size else bytes(data) + b"\0" * 5)
    with pytest.raises(
        ConfigError, match=r"other pictures: 1 have changed since \(0\.jpg\); .* prepare` again"
    ):
        fits(cache, table_of(files))
    before = contents(cache.folder)
    with pytest.raises(ConfigError, match="have changed since"):
        prepare(table_of(files), cache.folder)
    assert contents(cache.folder) == before
    path.write_bytes(data)
    assert fits(cache, table_of(files)), "put back"


def test_many_replaced_pictures_are_counted(files, tmp_path):
    cache = prepare(table_of(files), tmp_path / "c")
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        put(files[1] / name, cv2.imencode(".png", picture(9))[1].tobytes())
    with pytest.raises(ConfigError, match=r"3 have changed since \(0\.jpg, 1\.jpg, 2\.jpg\)"):
        fits(cache, table_of(files))


def test_other_times_alone_do_not_matter(files, tmp_path, caplog):
    cache = prepare(table_of(files), tmp_path / "c")
    copied = tmp_path / "elsewhere"
    shutil.copytree(files[1], copied, copy_function=shutil.copyfile)
    with caplog.at_level(logging.INFO, "fastpose.data"):
        assert fits(cache, table_of(files, copied))
    assert "3 pictures have other times" in caplog.text
    put(copied / "2.jpg", bytes((copied / "2.jpg").stat().st_size))
    with pytest.raises(ConfigError, match=r"2\.jpg"):
        fits(cache, table_of(files, copied))


def test_of_many_touched_pictures_some_are_compared(files, tmp_path, monkeypatch):
    cache = prepare(table_of(files), tmp_path / "c")
    for path in files[1].iterdir():
        put(path, path.read_bytes())
    read, checksum = [], sources_module.checksum

    def counting(images, name):
        read.append(name)
        return checksum(images, name)

    monkeypatch.setattr(sources_module, "COMPARED", 2)
    monkeypatch.setattr(sources_module, "checksum", counting)
    assert fits(cache, table_of(files))
    assert len(set(read)) == len(read) == 2


def test_pictures_that_are_gone_need_not_come_back(files, tmp_path):
    cache = prepare(table_of(files), tmp_path / "c")
    for path in files[1].iterdir():
        path.unlink()
    assert fits(cache, table_of(files))


def test_pictures_in_a_zip(files, tmp_path):
    archive = zipped(files[1], "first")
    cache = prepare(table_of(files, archive), tmp_path / "c")
    assert fits(cache, table_of(files, archive))
    assert fits(cache, table_of(files)), "the same files in a folder"
    folder = prepare(table_of(files), tmp_path / "d")
    assert fits(folder, table_of(files, archive))
    path = files[1] / "1.jpg"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(ConfigError, match=r"\(1\.jpg\)"):
        fits(cache, table_of(files, zipped(files[1], "second")))


@pytest.mark.parametrize("broken", [None, b"\xff\xd8 broken"], ids=["missing", "damaged"])
def test_a_picture_repaired_since_asks_for_another_cache(files, tmp_path, broken):
    path = files[1] / "0.jpg"
    data = path.read_bytes()
    path.unlink()
    if broken:
        path.write_bytes(broken)
    cache = prepare(table_of(files), tmp_path / "c")
    assert fits(cache, table_of(files))
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"\(0\.jpg\)"):
        fits(cache, table_of(files))


def test_drawn_pictures_have_no_files(tmp_path):
    table = figures(4)
    cache = prepare(table, tmp_path / "c")
    assert cache.rows[SOURCE].tolist() == [tuple(UNKNOWN)] * len(table)
    assert fits(cache, table)


def as_format_1(folder):
    """What a cache looked like before files were noted."""
    old = np.dtype([field for field in ROW.descr if field[0] not in SOURCE])
    rows, index = np.load(folder / "index.npy"), folder / "index.npy"
    plain = np.zeros(len(rows), old)
    for name in old.names:
        plain[name] = rows[name]
    np.save(index, plain)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"format": 1, "index_sha256": sha256(index)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_caches_of_format_1_are_read_as_before(files, tmp_path):
    table = table_of(files)
    cache = prepare(table, tmp_path / "c")
    as_format_1(cache.folder)
    old = CropCache(cache.folder)
    options = {"input_size": SIZE, "augmentation": AUGMENTATION}
    new, read = CropDataset(table, **options), CropDataset(table, crops=old, **options)
    assert all(same(new[epoch, i], read[epoch, i]) for epoch in range(2) for i in range(len(table)))
    put(files[1] / "0.jpg", b"replaced")
    assert fits(cache, table_of(files)), "nothing is known of its pictures"
    assert len(prepare(table_of(files), cache.folder)) == len(table)


def test_one_begun_by_format_1_begins_again(files, tmp_path):
    table, folder = table_of(files), tmp_path / "c"

    def stop(count):
        if (folder / "shard_00000.json").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(table, folder, shard_bytes=1, advance=stop)
    rows = np.load(folder / "shard_00000.npy")
    np.save(folder / "shard_00000.npy", rows[[name for name in rows.dtype.names if name not in SOURCE]])
    note = json.loads((folder / "shard_00000.json").read_text())
    note["rows_sha256"] = sha256(folder / "shard_00000.npy")
    (folder / "shard_00000.json").write_text(json.dumps(note))
    prepare(table, folder, shard_bytes=1)
    prepare(table, tmp_path / "whole", shard_bytes=1)
    assert contents(folder) == contents(tmp_path / "whole")
