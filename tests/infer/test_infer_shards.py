"""Shards: the same ones everywhere, every picture in one of them, and results that survive a kill."""

import json
import os
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pose_stubs import ChannelPeaks
from shard_pictures import SIZE, add, boxes, png, spot, write_folder, write_table, write_tar

from fastpose.errors import ConfigError, DataError, OutputError
from fastpose.infer import shard_files
from fastpose.infer.predictor import Predictor
from fastpose.infer.shard_run import ShardRun, run_settings
from fastpose.infer.shards import Shard, find_shards

COUNT = 22


def predictor(**more) -> Predictor:
    return Predictor(ChannelPeaks(), **{"detector": "whole", "flip_test": False, "device": "cpu", **more})


def needs_arrow(kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")


@pytest.fixture
def source(request, tmp_path: Path) -> Path:
    """The pictures 0 to COUNT - 1 in the way that the test asks for."""
    root = tmp_path / "in"
    needs_arrow(request.param)
    parts = [range(start, min(start + 6, COUNT)) for start in range(0, COUNT, 6)]
    if request.param == "folder":
        return write_folder(root, COUNT)
    for number, part in enumerate(parts):
        if request.param == "tar":
            write_tar(root / f"part-{number}.tar", part)
        else:
            write_table(root / f"part-{number}.parquet", part)
    return root


every_source = pytest.mark.parametrize("source", ["folder", "tar", "parquet"], indirect=True)


@every_source
def test_every_picture_is_in_one_shard_with_its_own_boxes(source):
    shards = find_shards(source, pictures=6)
    assert len(shards) == 4
    assert len({shard.name for shard in shards}) == 4
    records = [record for shard in shards for record in shard.records()]
    assert [Path(record.key).stem for record in records] == [f"{number:04d}" for number in range(COUNT)]
    packed = source.joinpath("part-0.tar").exists() or source.joinpath("part-0.parquet").exists()
    assert [record.boxes for record in records] == [boxes(n) if packed else None for n in range(COUNT)]
    results = list(predictor().run_items(item for shard in shards for item in shard.items()))
    for number, result in enumerate(results):
        assert result.error is None
        assert len(result) == (number % 3 if packed else 1)
        for person in result.keypoints.xy:
            assert np.abs(person.mean(axis=0) - spot(number)).max() < 5


@every_source
def test_shards_are_the_same_whoever_looks(source):
    assert find_shards(source, pictures=6) == find_shards(str(source), pictures=6)


def test_digest_tells_other_work(tmp_path):
    folder = write_folder(tmp_path / "a", 8)
    before = find_shards(folder, pictures=4)
    (folder / "00" / "0000.png").rename(folder / "00" / "0000b.png")
    after = find_shards(folder, pictures=4)
    assert [a.digest == b.digest for a, b in zip(before, after, strict=True)] == [False, True]
    archive = write_tar(tmp_path / "b.tar", range(2))
    (one,) = find_shards(archive)
    write_tar(archive, range(20))
    (other,) = find_shards(archive)
    assert one.digest != other.digest


def test_hidden_files_and_other_kinds_are_left_out(tmp_path):
    folder = write_folder(tmp_path, 2)
    (folder / ".thumbs").mkdir()
    for name in (".thumbs/a.png", ".b.png", "readme.txt"):
        (folder / name).write_bytes(png(0))
    (shard,) = find_shards(folder)
    assert shard.files == ("00/0000.png", "00/0001.png")


@pytest.mark.parametrize("what", ["nothing", "empty", "mixed", "text", "twice", "no_files", "pictures"])
def test_sources_that_are_none(tmp_path, what):
    archive = write_tar(tmp_path / "in" / "a.tar", range(1))
    text = tmp_path / "a.txt"
    text.write_text("no")
    (tmp_path / "none").mkdir()
    mixed = write_folder(tmp_path / "mixed", 1)
    write_tar(mixed / "a.tar", range(1))
    given = {
        "nothing": tmp_path / "gone", "empty": tmp_path / "none", "mixed": mixed, "text": text,
        "twice": [archive, archive], "no_files": [], "pictures": archive,
    }  # fmt: skip
    messages = {
        "nothing": "no such", "empty": "no picture", "mixed": "and archives", "text": "expected a folder",
        "twice": "twice", "no_files": "no file", "pictures": "above 0",
    }  # fmt: skip
    with pytest.raises(DataError, match=messages[what]):
        find_shards(given[what], pictures=0 if what == "pictures" else 5)


def test_json_in_front_of_its_picture_and_without_one(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "./a.json", b'{"boxes": [[1, 2, 3, 4]], "box_score": [0.5]}')
        add(archive, "./a.png", png(0))
        add(archive, "b.json", b'{"boxes": [[5, 6, 7, 8]]}')
        add(archive, "c.png", png(1))
        add(archive, "notes.txt", b"no picture")
    (shard,) = find_shards(path)
    records = list(shard.records())
    assert [(record.key, record.boxes, record.box_score) for record in records] == [
        ("./a.png", [[1, 2, 3, 4]], [0.5]),
        ("c.png", None, None),
    ]


def test_what_is_wrong_with_one_picture_costs_one_row(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "good.png", png(3))
        add(archive, "cut.png", png(3)[:-20])
        add(archive, "boxes.png", png(3))
        add(archive, "boxes.json", b'{"boxes": [[1, 2]]}')
        add(archive, "scores.png", png(3))
        add(archive, "scores.json", b'{"boxes": [[1, 2, 3, 4]], "box_score": [1, 2]}')
        add(archive, "json.png", png(3))
        add(archive, "json.json", b"{")
        add(archive, "list.png", png(3))
        add(archive, "list.json", b"[]")
        add(archive, "last.png", png(3))
    (shard,) = find_shards(path)
    found = {result.name: str(result.error) for result in predictor().run_items(shard.items())}
    expected = {
        "good.png": "None", "cut.png": "cut short", "boxes.png": "expected (N, 4)",
        "scores.png": "2 scores for 1 box", "json.png": "is not JSON", "list.png": "expected an object",
        "last.png": "None",
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in found[name]
        assert reason == "None" or found[name].startswith(f"{path}: {name}: ")


@pytest.mark.parametrize("cut", ["member", "between", "empty", "noise"])
def test_damaged_archives_are_no_shards(tmp_path, cut):
    path = write_tar(tmp_path / "a.tar", range(6))
    data = path.read_bytes()
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-2]
    lengths = {"member": last.offset_data + 7, "between": last.offset, "empty": 0, "noise": 0}
    path.write_bytes(data[: lengths[cut]] if cut != "noise" else b"x" * 4000)
    (shard,) = find_shards(path)
    with pytest.raises(DataError, match=r"a\.tar"):
        list(shard.records())


def test_compressed_archives(tmp_path):
    plain = write_tar(tmp_path / "a.tar", range(3))
    packed = tmp_path / "a.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        add(archive, "0000.png", png(0))
    assert [len(list(shard.records())) for shard in find_shards([plain, packed])] == [3, 1]
    packed.write_bytes(packed.read_bytes()[:90])
    with pytest.raises(DataError, match="copy it again"):
        list(find_shards(packed)[0].records())


@pytest.mark.parametrize("form", ["bytes", "struct", "path", "nothing"])
def test_columns_that_hold_pictures(tmp_path, form):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "b.png").write_bytes(png(5))
    columns = {
        "bytes": {"jpg": [png(5), None]},
        "struct": {"image": [{"bytes": png(5), "path": "x.png"}, {"bytes": None, "path": "b.png"}]},
        "path": {"path": ["b.png", "gone.png"]},
        "nothing": {"caption": ["a", "b"]},
    }
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table(columns[form]), path)
    (shard,) = find_shards(path)
    if form == "nothing":
        with pytest.raises(DataError, match="no column of pictures"):
            list(shard.records())
        return
    results = list(predictor().run_items(shard.items()))
    assert [result.error is None for result in results] == [True, form == "struct"]
    assert [result.name for result in results] == (
        ["b.png", "gone.png"] if form == "path" else ["row-000000", "row-000001"]
    )
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        list(shard.records())


def rows_of(out: Path, name: str) -> list[dict]:
    from pyarrow import parquet

    return parquet.read_table(out / f"{name}.parquet").to_pylist()


@pytest.mark.parametrize("source", ["tar"], indirect=True)
def test_parquet_holds_what_the_predictor_finds(source, tmp_path):
    pytest.importorskip("pyarrow")
    run = ShardRun(find_shards(source), tmp_path / "out", {})
    records = list(run.run(predictor()))
    assert [record["pictures"] for record in records] == [6, 6, 6, 4]
    rows = [row for shard in run.shards for row in rows_of(run.out, shard.name)]
    results = [r for shard in run.shards for r in predictor().run_items(shard.items())]
    for row, result in zip(rows, results, strict=True):
        assert row["key"] == result.name
        assert (row["width"], row["height"], row["error"]) == (SIZE, SIZE, None)
        assert row["boxes"] == result.boxes.xywh.tolist()
        points = np.array(row["keypoints"], np.float32).reshape(-1, 2, 3)
        np.testing.assert_array_equal(points[..., :2], result.keypoints.xy)
        np.testing.assert_array_equal(points[..., 2], result.keypoints.conf)
        np.testing.assert_allclose(row["score"], [p["score"] for p in result.summary()], rtol=1e-6)
    summary = json.loads((run.out / "summary.json").read_text())
    assert summary["pictures"] == COUNT
    assert summary["people"] == sum(number % 3 for number in range(COUNT))
    assert summary["files"] == [f"{shard.name}.parquet" for shard in run.shards]


@pytest.mark.parametrize("source", ["folder"], indirect=True)
def test_coco_json_and_the_errors_beside_it(source, tmp_path):
    (source / "00" / "0002.png").write_bytes(b"no picture")
    run = ShardRun(find_shards(source, pictures=5), tmp_path / "out", {}, format="coco")
    records = list(run.run(predictor()))
    rows = [row for s in run.shards for row in json.loads((run.out / f"{s.name}.coco.json").read_text())]
    assert [row["file_name"] for row in rows] == [f"{n // 4:02d}/{n:04d}.png" for n in range(COUNT) if n != 2]
    assert [row["image_id"] for row in rows] == [n for n in range(COUNT) if n != 2]
    (error,) = records[0]["errors"]
    assert error["key"] == "00/0002.png"
    assert "not an image" in error["error"]
    assert json.loads((run.out / "summary.json").read_text())["errors"] == 1


@pytest.mark.parametrize("format", ["parquet", "coco"])
def test_names_that_are_no_utf8(tmp_path, format):
    needs_arrow(format)
    folder = os.fsencode(tmp_path / "in")
    os.mkdir(folder)
    for name, data in ((b"a\xff.png", png(0)), (b"b\xfe.png", b"no picture")):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(data)
    run = ShardRun(find_shards(tmp_path / "in"), tmp_path / "out", {}, format=format)
    (record,) = run.run(predictor())
    assert (record["pictures"], record["people"], len(record["errors"])) == (2, 1, 1)
    if format == "parquet":
        assert [row["key"] for row in rows_of(run.out, run.shards[0].name)] == [
            "a\\udcff.png",
            "b\\udcfe.png",
        ]


def test_shares_are_all_shards_once_whatever_the_number_of_processes(tmp_path):
    shards = [Shard(f"{n}", tmp_path, "", ()) for n in range(11)]
    run = ShardRun(shards, tmp_path / "out", {}, format="coco")
    for world in (1, 2, 3, 16):
        shared = Counter(shard.name for rank in range(world) for shard in run.share(rank, world))
        assert shared == Counter(shard.name for shard in shards)
    for rank, world in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(DataError, match="rank"):
            run.share(rank, world)


class Killed(BaseException):
    """Not an error that anything here catches, like the end of a process."""


@pytest.mark.parametrize("format", ["parquet", "coco"])
@pytest.mark.parametrize("moment", ["reading", "renaming", "recording"])
@pytest.mark.parametrize("source", ["tar"], indirect=True)
def test_killed_and_started_again(source, tmp_path, monkeypatch, moment, format):
    """The end of the process in the midst of the third shard, then a restart with another number of them."""
    needs_arrow(format)
    shards = find_shards(source)
    whole = ShardRun(shards, tmp_path / "whole", {}, format=format)
    list(whole.run(predictor()))

    out = tmp_path / "out"
    run = ShardRun(shards, out, {}, format=format)
    with monkeypatch.context() as patched:
        die_in_third_shard(patched, moment, shards[2])
        with pytest.raises(Killed):
            list(run.run(predictor()))
    assert [run.is_done(shard) for shard in shards] == [True, True, False, False]
    assert run.summarize() is None
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("0000[01]*")}
    assert len(before) == 2
    for left in out.rglob(".*.tmp"):  # of a process with another number
        left.rename(left.with_name(left.name.replace(f".{os.getpid()}.", ".1.")))

    again = ShardRun(shards, out, {}, format=format)
    done = [record["shard"] for rank in (1, 0) for record in again.run(predictor(), rank, 2)]
    assert done == [shards[3].name, shards[2].name]
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("0000[01]*")} == before
    names = sorted(path.name for path in whole.out.rglob("*") if path.is_file())
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == names, "nothing lies about"
    for shard in shards:
        name = f"{shard.name}{run.suffix}"
        assert (out / name).read_bytes() == (whole.out / name).read_bytes()
    assert list(again.run(predictor())) == []


def die_in_third_shard(patched, moment: str, third: Shard) -> None:
    if moment == "reading":
        plain = shard_files.tar_records

        def records(path):
            for number, record in enumerate(plain(path)):
                if path == third.path and number == 3:
                    raise Killed
                yield record

        patched.setattr("fastpose.infer.shards.tar_records", records)
        return
    plainly = os.replace

    def rename(source, target):
        target = Path(target)
        if third.name in target.name and (target.parent.name == "done") == (moment == "recording"):
            raise Killed
        plainly(source, target)

    patched.setattr("fastpose.files.os.replace", rename)


@pytest.mark.parametrize("source", ["tar"], indirect=True)
def test_process_that_begins_when_others_are_done_misses_nothing(source, tmp_path):
    shards = find_shards(source)
    run = ShardRun(shards, tmp_path / "out", {}, format="coco")
    done = [record["shard"] for rank in range(3) for record in run.run(predictor(), rank, 3)]
    assert sorted(done) == [shard.name for shard in shards]


@pytest.mark.parametrize("source", ["tar"], indirect=True)
def test_results_that_were_lost_are_made_again(source, tmp_path):
    run = ShardRun(find_shards(source), tmp_path / "out", {}, format="coco")
    list(run.run(predictor()))
    names = [f"{shard.name}.coco.json" for shard in run.shards]
    (run.out / names[0]).unlink()
    (run.out / names[1]).write_text("[]")
    (run.out / "done" / f"{run.shards[2].name}.json").write_text("{")
    assert [record["shard"] for record in run.run(predictor())] == [shard.name for shard in run.shards[:3]]


@pytest.mark.parametrize("source", ["tar"], indirect=True)
def test_shard_that_cannot_be_read_stops_no_other(source, tmp_path, caplog):
    bad = source / "part-1.tar"
    bad.write_bytes(bad.read_bytes()[:5000])
    shards = find_shards(source)
    run = ShardRun(shards, tmp_path / "out", {}, format="coco")
    with pytest.raises(DataError, match=r"1 shards cannot be read: 00001-part-1 .*part-1\.tar"):
        list(run.run(predictor()))
    assert [run.is_done(shard) for shard in shards] == [True, False, True, True]
    assert "00001-part-1: left out" in caplog.text
    assert not (run.out / "summary.json").exists()
    assert not list(run.out.glob(".*")), "nothing half-written"


@pytest.mark.parametrize("change", ["format", "settings", "shards"])
def test_folder_of_another_run_is_refused(tmp_path, change):
    shards = [Shard("a", tmp_path, "1", ()), Shard("b", tmp_path, "2", ())]
    ShardRun(shards, tmp_path / "out", {"flip_test": True}, format="coco")
    ShardRun(shards, tmp_path / "out", {"flip_test": True}, format="coco")
    pytest.importorskip("pyarrow")
    other = [replace(shards[0], digest="3"), shards[1]] if change == "shards" else shards
    with pytest.raises(OutputError, match=f"begun with other {change};"):
        ShardRun(
            other,
            tmp_path / "out",
            {"flip_test": change != "settings"},
            format="parquet" if change == "format" else "coco",
        )


def test_damaged_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(OutputError, match=r"manifest\.json: is damaged"):
        ShardRun([], tmp_path, {}, format="coco")


def test_settings_tell_files_by_their_bytes(tmp_path):
    one, copy, other = (tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors"))
    for path, text in ((one, "x"), (copy, "x"), (other, "y")):
        path.write_text(text)
    assert run_settings(one, batch_size=4, refine="dark") == run_settings(copy, device="cuda", refine="dark")
    assert run_settings(one) != run_settings(other)
    assert run_settings(one, refine="dark") != run_settings(one)
    named = run_settings("hrnet_w32", weights=one)
    assert named["model"] == "hrnet_w32"
    assert named == run_settings("hrnet_w32", weights=copy)


def test_formats_and_packages(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="format: expected one of parquet, coco, got 'csv'"):
        ShardRun([], tmp_path, {}, format="csv")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="pip install pyarrow"):
        ShardRun([], tmp_path, {})
    ShardRun([], tmp_path, {}, format="coco")
