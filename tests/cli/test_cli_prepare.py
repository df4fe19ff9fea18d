"""`fastpose prepare`: what it writes and what it says."""

import json

import pytest
from conftest import shared_path

from fastpose.cli import main
from fastpose.data.crop_cache import CropCache
from fastpose.train.config_io import load_config
from fastpose.train.tasks.pose_data import aspect_ratio, train_table

TINY = ["data.input_size=[64, 64]", "data.figures.train_count=6", "augment.scale_factor=0.2"]


def test_writes_a_cache_that_fits_and_goes_on(tmp_path, capsys):
    out = tmp_path / "crops"
    argv = ["prepare", "samples/figures", str(out), *TINY, "--workers", "2", "--shard-mb", "0.05"]
    assert main(argv) == 0
    config = load_config("samples/figures", TINY)
    table = train_table(config)
    cache = CropCache(out)
    cache.check_fits(table, config.augment, aspect_ratio(config))
    output = capsys.readouterr().out
    assert f"{len(table)} persons of 6 pictures in {out}: " in output
    assert f"{len(cache.manifest['shards'])} shards" in output
    assert len(cache.manifest["shards"]) > 1
    assert output.splitlines()[-1] == (
        f"next: fastpose train samples/figures '{TINY[0]}' {TINY[1]} {TINY[2]} data.crop_cache={out}"
    )
    assert main(argv) == 0
    assert main([*argv, "--check"]) == 0
    assert "whole, and fits" in capsys.readouterr().out


@pytest.mark.parametrize("store", ["png", "raw"])
def test_stores_and_reduces_as_asked(tmp_path, capsys, store):
    argv = ["prepare", "samples/figures", str(tmp_path / "c"), *TINY, "--store", store, "--max-side", "100"]
    assert main([*argv, "--workers", "0"]) == 0
    manifest = json.loads((tmp_path / "c" / "manifest.json").read_text())
    assert manifest["recipe"]["kind"] == store
    assert manifest["reduced"] > 0
    assert f"{manifest['reduced']} reduced to at most 100 pixels a side" in capsys.readouterr().out


@pytest.mark.parametrize("sample", ["coco_mini", "mpii_sample", "crowdpose_sample"])
def test_every_format_can_be_prepared(tmp_path, sample):
    root = shared_path("data", sample)
    out = str(tmp_path / "c")
    assert main(["prepare", f"samples/{sample}", out, f"data.root={root}", "--workers", "0"]) == 0
    assert main(["prepare", f"samples/{sample}", out, f"data.root={root}", "--check"]) == 0


def test_names_pictures_left_out(tmp_path, capsys):
    data = tmp_path / "data"
    assert main(["figures", str(data), "--count", "3", "--size", "128", "128"]) == 0
    bad = min((data / "images" / "train2017").iterdir())
    bad.write_bytes(bad.read_bytes()[:300])
    argv = ["prepare", "samples/figures", str(tmp_path / "c"), *TINY, "data.format=coco", f"data.root={data}"]
    capsys.readouterr()
    assert main(argv) == 0
    output = capsys.readouterr().out
    assert " left out, their pictures could not be read:" in output
    assert bad.name in output
    assert main([*argv[:2], str(tmp_path / "d"), *argv[3:], "data.on_bad=stop"]) == 2
    assert bad.name in capsys.readouterr().err


def test_errors_name_the_thing_and_the_remedy(tmp_path, capsys):
    out = tmp_path / "c"
    argv = ["prepare", "samples/figures", str(out), *TINY, "--workers", "0"]
    assert main([*argv, "--check"]) == 2
    assert "no finished crop cache here; run `fastpose prepare CONFIG" in capsys.readouterr().err
    assert main([*argv, "--quality", "0"]) == 2
    assert "quality must be from 1 to 100, got 0" in capsys.readouterr().err
    assert main(argv) == 0
    assert main([*argv, "augment.scale_factor=0.3"]) == 2
    assert "by another recipe (reach" in capsys.readouterr().err
    assert main([*argv, "augment.scale_factor=0.9", "augment.rotation_factor=40", "--check"]) == 2
    assert "persons reach beyond what it holds" in capsys.readouterr().err
    shard = out / "shard_00000.bin"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    assert main([*argv, "--check"]) == 2
    assert "shard_00000.bin: its SHA-256 differs" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["nan", "inf", "-inf", "0", "-3", "1e-9"])
def test_size_of_a_shard_must_be_a_number_of_megabytes(tmp_path, capsys, size):
    argv = ["prepare", "samples/figures", str(tmp_path / "c"), *TINY, f"--shard-mb={size}"]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert f"--shard-mb {float(size)}: must be" in error
    assert not (tmp_path / "c").exists()


def test_help_says_what_it_is_for(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["prepare", "--help"])
    text = capsys.readouterr().out
    for word in ("examples:", "--max-side", "killed", "data.crop_cache=", "--workers"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 115
