"""ops.decode_heatmaps on a GPU: agreement with the reference, torch.compile and CUDA graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from official_dark import gaussian_maps
from tolerances import TOLERANCES
from torch import Tensor

from fastpose.backend import use_backend
from fastpose.keypoints import COCO_17
from fastpose.ops import Decoded, decode_heatmaps
from fastpose.reference import decode as reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
NAN, INF = float("nan"), float("inf")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
REFINE = pytest.mark.parametrize("refine", ["none", "quarter", "dark"])
LAYOUTS = {
    "contiguous": lambda maps: maps,
    "channels_last": lambda maps: maps.contiguous(memory_format=torch.channels_last),
    "transposed": lambda maps: maps.transpose(2, 3).contiguous().transpose(2, 3),
    "window": lambda maps: maps.contiguous(memory_format=torch.channels_last)[:, 1:-1, 2:, :-3],
}


def inputs(batch: int, joints: int = 17) -> tuple[Tensor, Tensor]:
    """Peaked maps with a little of everything, and what the network could give for the mirrored crops."""
    maps = gaussian_maps((batch, joints, 64, 48), 2.0, margin=1.0, noise=0.02)[0]
    maps[0, 0], maps[0, 1], maps[-1, 2, 3], maps[-1, 3, 30, 20] = NAN, -1.0, INF, NAN
    return maps, maps.flip(3).roll(-1, 3) * 0.9


def boxes(batch: int) -> tuple[Tensor, Tensor]:
    return torch.rand(batch, 2) * 600, torch.rand(batch, 2) * 3 + 0.2


def assert_agree(got: Decoded, expected: Decoded, refine: str) -> None:
    assert torch.equal(got.score.cpu(), expected.score)
    assert torch.equal(got.valid.cpu(), expected.valid)
    if refine == "dark":
        atol = 20 * TOLERANCES["decode", "dark"][0]  # image pixels: a heatmap pixel is up to 14 of them
        torch.testing.assert_close(got.keypoints.cpu(), expected.keypoints, atol=atol, rtol=1e-6)
    else:
        assert torch.equal(got.keypoints.cpu(), expected.keypoints)


@DTYPES
@REFINE
@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 5, 300])
def test_agrees_with_the_reference(
    batch: int, layout: str, flip: bool, refine: str, dtype: torch.dtype
) -> None:
    if batch == 300 and (dtype != torch.float32 or layout == "window"):
        pytest.skip("large batches differ from small ones in the number of threads alone")
    maps, flipped = (LAYOUTS[layout](each.to(dtype)) for each in inputs(batch))
    center, scale = boxes(batch)
    order = torch.randperm(maps.shape[1])
    options: dict[str, Any] = {"flipped": flipped, "flip_index": order} if flip else {}
    expected = reference.decode_heatmaps(maps, center, scale, refine=refine, **options)
    moved = {name: value.cuda() for name, value in options.items()}
    with use_backend("cpp"):
        got = decode_heatmaps(maps.cuda(), center.cuda(), scale.cuda(), refine=refine, **moved)
    assert_agree(got, expected, refine)


@pytest.mark.parametrize("joints", [1, 2, 133, 1025, 1100])
def test_any_number_of_joints(joints: int) -> None:
    maps = torch.randn(2, joints, 9, 7).contiguous(memory_format=torch.channels_last)
    options = {"flipped": maps.flip(0), "flip_index": torch.randperm(joints)}
    expected = reference.decode_heatmaps(maps, **options)
    with use_backend("cpp"):
        got = decode_heatmaps(maps.cuda(), **{name: value.cuda() for name, value in options.items()})
    assert_agree(got, expected, "quarter")


def test_entry_that_is_no_joint() -> None:
    for layout in ("contiguous", "channels_last"):
        maps = LAYOUTS[layout](torch.rand(2, 4, 9, 7).cuda())
        with use_backend("cpp"):
            got = decode_heatmaps(maps, flipped=maps, flip_index=torch.tensor([0, 4, -1, 3]).cuda())
        assert got.valid.tolist() == [[True, False, False, True]] * 2
        assert got.score[:, 1:3].tolist() == [[0.0, 0.0]] * 2


@REFINE
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_compiles_whole(layout: str, mode: str, refine: str) -> None:
    torch._dynamo.reset()
    order = torch.tensor(COCO_17.flip_index).cuda()
    center, scale = (value.cuda() for value in boxes(4))

    def network(maps: Tensor, flipped: Tensor) -> Decoded:
        return decode_heatmaps(maps * 2, center, scale, flipped=flipped * 2, flip_index=order, refine=refine)

    compiled = torch.compile(network, fullgraph=True, mode=mode)
    with use_backend("cpp"):
        for _ in range(3):
            maps, flipped = (LAYOUTS[layout](each).cuda() for each in inputs(4))
            got = Decoded(*(part.clone() for part in compiled(maps, flipped)))
            expected = network(maps, flipped)
            assert_agree(got, Decoded(*(part.cpu() for part in expected)), refine)


@pytest.mark.parametrize(
    "order", [COCO_17.flip_index, torch.tensor(COCO_17.flip_index)], ids=["tuple", "cpu"]
)
def test_an_order_seen_before_can_be_captured(order: Any) -> None:
    maps, flipped = (each.cuda() for each in inputs(2))
    expected = decode_heatmaps(maps, flipped=flipped, flip_index=order)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = decode_heatmaps(maps, flipped=flipped, flip_index=order)
    graph.replay()
    assert_agree(got, Decoded(*(part.cpu() for part in expected)), "quarter")


@REFINE
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_graph_replay_on_a_side_stream_with_changed_inputs(layout: str, refine: str) -> None:
    order = torch.tensor(COCO_17.flip_index).cuda()
    static = [LAYOUTS[layout](each).cuda() for each in inputs(4)]
    center, scale = (value.cuda() for value in boxes(4))

    def run() -> Decoded:
        return decode_heatmaps(static[0], center, scale, flipped=static[1], flip_index=order, refine=refine)

    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with use_backend("cpp"):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph, stream=stream):
            got = run()
    for _ in range(3):
        maps, flipped = (LAYOUTS[layout](each) for each in inputs(4))
        new_center, new_scale = boxes(4)
        with torch.cuda.stream(stream):
            for to, value in zip(
                (*static, center, scale), (maps, flipped, new_center, new_scale), strict=True
            ):
                to.copy_(value)
            graph.replay()
        stream.synchronize()
        expected = reference.decode_heatmaps(
            maps, new_center, new_scale, flipped=flipped, flip_index=order.cpu(), refine=refine
        )
        assert_agree(got, expected, refine)
