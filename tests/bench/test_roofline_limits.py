"""Limits of single operations, and the command."""

import pytest
import torch

from bench.roofline import decode_limit, fuse_limit, heatmap_limit, loss_limit, network_limit, trace, work
from bench.roofline.__main__ import main
from fastpose.models import create_model
from fastpose.reference.fuse import Path, Row

E0, E1, E2, E3 = (2 * 48 * 64 * 48 // 2**i for i in range(4))  # bytes of W48's branches, bfloat16, one image


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def exchange(batch: int, stages: int = 4, rows: int | None = None, frozen: bool = False) -> list[Row]:
    """W48's exchange of the first `stages` branches as the operation gets it: down paths are images."""
    widths = [48 * 2**i for i in range(stages)]
    images = [meta(batch, w, 64 >> i, 48 >> i) for i, w in enumerate(widths)]
    found = []
    for i in range(stages if rows is None else rows):
        given = (meta(widths[i]), meta(widths[i])) if frozen else (None, None)
        paths = []
        for j in range(stages):
            if j > i:
                paths.append(Path(images[j], meta(widths[i], widths[j]), None, None, *given))
            elif j < i:
                paths.append(Path(meta(*images[i].shape), None, None, None, *given))
        found.append(Row(images[i], tuple(paths)))
    return found


def test_fuse_in_evaluation_moves_each_image_of_a_row_once():
    limit = fuse_limit(exchange(64, rows=1, frozen=True), "eval")
    assert limit.bytes == 64 * (2 * E0 + E1 + E2 + E3)
    assert limit.bytes / 1e6 == pytest.approx(54, abs=0.5)  # PERFORMANCE.md 3 (ii)
    assert limit.flops == 2 * 64 * 48 * (96 * 32 * 24 + 192 * 16 * 12 + 384 * 8 * 6)
    assert limit.dtype == "bfloat16"


def test_fuse_forward_adds_the_statistics():
    low = E1 + E2 + E3
    assert fuse_limit(exchange(3, rows=1), "forward").bytes == 3 * (2 * E0 + 2 * low)
    gram = 2 * 3 * (96**2 * 32 * 24 + 192**2 * 16 * 12 + 384**2 * 8 * 6)
    evaluation = fuse_limit(exchange(3, rows=1, frozen=True), "eval").flops
    assert fuse_limit(exchange(3, rows=1), "forward").flops == evaluation + gram
    # Row 1 of two branches: the identity, a strided convolution's output read for its statistics and again.
    both, first = (fuse_limit(exchange(1, 2, rows), "forward").bytes for rows in (2, 1))
    assert both - first == 4 * E1


def test_fuse_backward_passes_twice_over_rows_and_sources():
    low, pools = E1 + E2 + E3, E0 // 4 + E0 // 16 + E0 // 64
    limit = fuse_limit(exchange(5, rows=1), "backward")
    assert limit.bytes == 5 * (3 * E0 + pools + (pools + low) + (pools + 2 * low))
    # With row 1, branch 1 is a source with a row of its own, and there is an image.
    both = fuse_limit(exchange(1, 2), "backward").bytes
    row0, row1 = 3 * E0 + E0 // 4, 3 * E1 + E1
    assert both == row0 + row1 + (E0 // 4 + E1) + (E0 // 4 + E1 + E1 + E1) + 3 * E1


def test_the_end_of_a_bottleneck_without_an_identity():
    x, narrow = meta(2, 64, 16, 16), meta(2, 64, 16, 16)
    rows = [Row(None, (Path(narrow, meta(256, 64)), Path(x, meta(256, 64))))]
    image = 2 * 64 * 16 * 16 * 2
    assert fuse_limit(rows, "forward").bytes == 2 * image + 2 * image + 4 * image
    assert fuse_limit(rows, "backward").bytes == 3 * 4 * image + 2 * (4 * image + image) + 2 * (6 * image)


def test_the_exchanges_of_the_network_move_what_their_limits_say():
    """All sums of scheme c but row 1 of stage 2, whose sum is the epilogue of a convolution."""
    graph = trace(create_model("hrnet_w48").eval(), (192, 256))
    sums = work(graph, "c", training=False, batch=1).only("fuse sum").image_bytes()
    stage2 = fuse_limit(exchange(1, 2, 1, frozen=True), "eval").bytes
    stage3 = fuse_limit(exchange(1, 3, frozen=True), "eval").bytes
    stage4 = [fuse_limit(exchange(1, 4, rows, frozen=True), "eval").bytes for rows in (4, 4, 1)]
    assert sums == stage2 + 4 * stage3 + sum(stage4)


def test_targets_loss_and_decode():
    maps, pixels = 64 * 17, 64 * 17 * 64 * 48
    joints = meta(64, 17, 2, dtype=torch.float32)
    pred = meta(64, 17, 64, 48)
    targets = heatmap_limit(joints, (48, 64))
    assert (targets.bytes, targets.traffic) == (4 * pixels + maps * (8 + 4 + 4), "write")
    forward, backward, both = (loss_limit(pred, joints, p) for p in ("forward", "backward", "both"))
    assert (forward.bytes, forward.traffic) == (2 * pixels + 12 * maps, "read")
    assert (backward.bytes, backward.traffic) == (4 * pixels + 12 * maps, "copy")
    assert both.bytes == backward.bytes
    once, twice = decode_limit(pred), decode_limit(pred, flipped=True)
    assert (once.bytes, twice.bytes) == (2 * pixels + 13 * maps, 4 * pixels + 13 * maps)


def test_a_network_has_the_floor_for_its_limit():
    model = create_model("hrnet_w18_small").train()
    limit = network_limit(model, (64, 64), training=True, batch=4, dtype=torch.float16)
    floor = work(trace(model, (64, 64)), "d", batch=4, dtype=torch.float16)
    assert (limit.bytes, limit.flops, limit.dtype) == (floor.total_bytes, 4 * floor.flops(), "float16")
    compiled = network_limit(model, (64, 64), training=True, batch=4, dtype=torch.float16, scheme="b")
    assert compiled.bytes > limit.bytes


@pytest.mark.parametrize(
    "call",
    [lambda: fuse_limit(exchange(1), "train"), lambda: loss_limit(meta(1, 1, 2, 2), meta(1, 1, 2), "once")],
    ids=["fuse", "loss"],
)
def test_limits_name_what_is_wrong(call):
    with pytest.raises(ValueError, match="expected"):
        call()


def test_the_command_prints_the_table(capsys):
    options = ["hrnet_w18_small", "--batch", "8", "--size", "64x96", "--copy", "4.3", "--tflops", "790"]
    assert main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "hrnet_w18_small 64x96, training step of 8 in bfloat16"
    assert [line.split()[0] for line in lines[4:11]] == list("abfpcxd")
    assert any(line.startswith("fuse up") for line in lines)
    assert "ms" in lines[4]
    assert main([*options[:5], "--inference", "--split", "t"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[4:9]] == list("abtcd")
    assert "ms" not in lines[4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hrnet_w4"], "did you mean 'hrnet_w48'"),
        (["hrnet_w48", "--size", "100x64"], "multiple of 32"),
        (["hrnet_w48", "--batch", "0"], "batch: expected at least 1"),
    ],
)
def test_the_command_explains_itself(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hrnet_w48", "--size", "192"], "width x height"),
        (["hrnet_w48", "--copy", "4"], "give both"),
        (["hrnet_w48", "--split", "t"], "expected one of a, b, f"),
    ],
)
def test_the_command_refuses_options(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err
