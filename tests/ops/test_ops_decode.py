"""ops.decode_heatmaps: the native decoder against official numbers, the reference and a NumPy oracle."""

from __future__ import annotations

import logging
import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fastpose import _ext, backend
from fastpose.backend import set_backend, use_backend
from fastpose.errors import BackendUnavailableError
from fastpose.keypoints import COCO_17
from fastpose.ops import Decoded, decode_heatmaps
from fastpose.ops import decode as ops_decode
from fastpose.reference import decode as reference

Golden = dict[str, np.ndarray]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
INF, NAN = float("inf"), float("nan")


@pytest.fixture
def cpp() -> Any:
    """Runs the test under the native backend."""
    _, reason = _ext.load()
    if reason:
        pytest.skip(reason)
    with use_backend("cpp"):
        yield


def same(got: Decoded, expected: Decoded) -> bool:
    return all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def holes(maps: Tensor) -> Tensor:
    """Puts NaN and infinities into every fifth value, and nothing finite into one map, in place."""
    values = maps.view(-1)[::5]
    values.copy_(torch.tensor([NAN, INF, -INF, 1.0]).repeat(len(values) // 4 + 1)[: len(values)])
    maps[-1, maps.shape[1] // 2] = NAN
    return maps


def boxes(batch: int) -> tuple[Tensor, Tensor]:
    return torch.rand(batch, 2) * 600, torch.rand(batch, 2) * 3 + 0.2


def single_map(height: int, width: int, values: dict[tuple[int, int], float], fill: float = 0.0) -> Tensor:
    """One map of `fill` with `values` at (x, y)."""
    heatmaps = torch.full((1, 1, height, width), fill)
    for (x, y), value in values.items():
        heatmaps[0, 0, y, x] = value
    return heatmaps


@pytest.mark.usefixtures("cpp")
class TestGolden:
    def test_peaks(self, golden_functions: Golden) -> None:
        got = decode_heatmaps(torch.from_numpy(golden_functions["decode_heatmaps"]), refine="none")
        np.testing.assert_array_equal(got.keypoints.numpy(), golden_functions["decode_argmax_xy"])
        np.testing.assert_array_equal(got.score.numpy(), golden_functions["decode_maxval"][..., 0])
        assert got.valid.all()

    @pytest.mark.parametrize("refine", ["quarter", "none"])
    def test_image_coordinates(self, golden_functions: Golden, refine: str) -> None:
        inputs = (golden_functions[f"decode_{name}"] for name in ("heatmaps", "center", "scale"))
        got = decode_heatmaps(*map(torch.from_numpy, inputs), refine=refine)
        expected = golden_functions["decode_final_xy" if refine == "quarter" else "decode_final_xy_no_refine"]
        # OpenCV solves a 6x6 system for what is a closed form here: they may round to neighbouring floats.
        np.testing.assert_array_max_ulp(got.keypoints.numpy(), expected, maxulp=1)

    def test_flip_average_without_shift(self, golden_functions: Golden) -> None:
        flipped = torch.from_numpy(golden_functions["flip_input"])
        mirrored = torch.from_numpy(golden_functions["flip_output"])
        maps = torch.randn_like(flipped)
        got = decode_heatmaps(maps, flipped=flipped, flip_index=COCO_17.flip_index, shift=False)
        assert same(got, reference.decode_heatmaps((maps + mirrored) * 0.5))


@pytest.mark.usefixtures("cpp")
class TestAgainstReference:
    @DTYPES
    @pytest.mark.parametrize("flip", ["plain", "flip", "flip_shift"])
    @pytest.mark.parametrize(
        "shape",
        [
            (2, 17, 64, 48),
            (1, 16, 64, 64),
            (2, 3, 96, 72),
            (1, 133, 12, 9),
            (3, 2, 1, 1),
            (2, 2, 5, 200),
            (1, 1, 7, 2),
        ],
        ids=str,
    )
    def test_random_maps(self, shape: tuple[int, ...], flip: str, dtype: torch.dtype) -> None:
        heatmaps = torch.randn(shape).to(dtype)
        center, scale = boxes(shape[0])
        options: dict[str, Any] = {}
        if flip != "plain":
            order = torch.randperm(shape[1]).tolist()
            options = {
                "flipped": torch.randn(shape).to(dtype),
                "flip_index": order,
                "shift": flip == "flip_shift",
            }
        assert same(
            decode_heatmaps(heatmaps, center, scale, **options),
            reference.decode_heatmaps(heatmaps, center, scale, **options),
        )

    @DTYPES
    def test_every_kind_of_number(self, dtype: torch.dtype) -> None:
        """Random bits: NaN, infinities, subnormal and huge values, ties among few distinct ones."""
        ints = torch.int32 if dtype == torch.float32 else torch.int16
        limits = torch.iinfo(ints)
        bits = torch.randint(limits.min, limits.max, (2, 40, 13, 11), dtype=torch.int64).to(ints)
        bits[:, ::2] = bits[:, ::2, :1, :4].repeat(1, 1, 13, 3)[..., :11]
        heatmaps, flipped = bits.view(dtype), bits.flip(0).contiguous().view(dtype)
        assert same(decode_heatmaps(heatmaps), reference.decode_heatmaps(heatmaps))
        heatmaps[0, 1:9:2, 4, 4] = torch.tensor([INF, -INF, NAN, torch.finfo(dtype).max]).to(dtype)
        assert same(decode_heatmaps(heatmaps), reference.decode_heatmaps(heatmaps))
        order = list(range(40))
        got = decode_heatmaps(heatmaps, flipped=flipped, flip_index=order)
        assert same(got, reference.decode_heatmaps(heatmaps, flipped=flipped, flip_index=order))

    def test_threads_do_not_change_the_answer(self) -> None:
        heatmaps, (center, scale) = torch.randn(40, 17, 64, 48), boxes(40)
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            one = decode_heatmaps(heatmaps, center, scale)
            torch.set_num_threads(3)
            assert same(decode_heatmaps(heatmaps, center, scale), one)
        finally:
            torch.set_num_threads(before)

    @pytest.mark.parametrize(
        "layout",
        [
            lambda maps: maps.to(memory_format=torch.channels_last),
            lambda maps: maps.transpose(2, 3),
            lambda maps: maps[:, ::2],
            lambda maps: maps[..., 3:40],
            lambda maps: maps[:1].expand(4, -1, -1, -1),
            lambda maps: maps.to(memory_format=torch.channels_last)[:, 3:13, 1:-2, 2:-1],
            lambda maps: maps.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1),
        ],
        ids=[
            "channels_last",
            "transposed",
            "every_second_joint",
            "columns",
            "expanded",
            "window_of_channels_last",
            "batch_beside_joints",
        ],
    )
    @pytest.mark.parametrize("flip", ["plain", "flip_alike", "flip_contiguous"])
    def test_layouts(self, layout: Any, flip: str) -> None:
        maps = layout(torch.randn(2, 17, 64, 48))
        center = torch.rand(2, maps.shape[0]).T
        scale = torch.rand(maps.shape[0], 4)[:, ::2]
        options: dict[str, Any] = {}
        if flip != "plain":
            flipped = layout(torch.randn(2, 17, 64, 48))
            order = torch.randperm(maps.shape[1]).tolist()
            options = {
                "flipped": flipped.contiguous() if "contiguous" in flip else flipped,
                "flip_index": order,
            }
        assert same(
            decode_heatmaps(maps, center, scale, **options),
            reference.decode_heatmaps(maps, center, scale, **options),
        )

    @DTYPES
    @pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
    @pytest.mark.parametrize("joints", [1, 2, 3, 4, 5, 7, 8, 11, 15, 16, 17, 21, 32, 33, 49, 64, 65, 133])
    def test_channels_last_of_any_number_of_joints(self, joints: int, flip: bool, dtype: torch.dtype) -> None:
        """Vectors of joints overlap, or fall into blocks, differently for each."""
        maps, flipped = (
            holes(torch.randn(2, joints, 7, 6).to(dtype)).contiguous(memory_format=torch.channels_last)
            for _ in range(2)
        )
        options: dict[str, Any] = (
            {"flipped": flipped, "flip_index": torch.randperm(joints).tolist()} if flip else {}
        )
        assert same(decode_heatmaps(maps, **options), reference.decode_heatmaps(maps, **options))

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
    def test_maps_are_not_copied(self, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
        module, _ = _ext.load()
        seen: list[dict[str, Any]] = []

        def params(**fields: Any) -> Any:
            seen.append(fields)
            return module.DecodeParams(**fields)

        counted = types.SimpleNamespace(DecodeParams=params, decode_cpu=module.decode_cpu)
        monkeypatch.setattr(_ext, "load", lambda: (counted, ""))
        maps = torch.randn(2, 17, 8, 6).contiguous(memory_format=layout)
        decode_heatmaps(maps, flipped=maps, flip_index=range(17))
        assert seen[0]["heatmaps"] == seen[0]["flipped"] == maps.data_ptr()
        assert seen[0]["heatmap_strides"] == seen[0]["flipped_strides"] == maps.stride()

    def test_boxes_in_float64_are_rounded(self) -> None:
        maps = torch.randn(2, 3, 8, 8)
        center, scale = (value.double() + 1e-9 for value in boxes(2))
        assert same(
            decode_heatmaps(maps, center, scale), decode_heatmaps(maps, center.float(), scale.float())
        )

    def test_empty_batch(self) -> None:
        got = decode_heatmaps(torch.zeros(0, 17, 8, 6), torch.zeros(0, 2), torch.zeros(0, 2))
        assert [tuple(part.shape) for part in got] == [(0, 17, 2), (0, 17), (0, 17)]
        assert [part.dtype for part in got] == [torch.float32, torch.float32, torch.bool]


@pytest.mark.usefixtures("cpp")
class TestMeaning:
    @pytest.mark.parametrize(
        ("values", "fill", "xy", "score", "valid"),
        [
            ({(3, 2): 1.0, (5, 2): 1.0, (0, 4): 1.0}, 0.0, (3, 2), 1.0, True),
            ({(3, 2): NAN, (5, 2): INF, (6, 3): 2.0, (1, 1): -INF}, 0.5, (6, 3), 2.0, True),
            ({(7, 4): -1.0}, -2.0, (0, 0), -1.0, True),
            ({(4, 2): 0.0}, -1.0, (0, 0), 0.0, True),
            ({}, NAN, (0, 0), 0.0, False),
            ({(1, 1): INF, (2, 2): NAN}, -INF, (0, 0), 0.0, False),
            ({(8, 4): 3.0}, NAN, (8, 4), 3.0, True),
            ({(4, 2): 2.0**-149}, 0.0, (4, 2), 2.0**-149, True),
        ],
        ids=["tie", "infinite", "negative", "zero", "all_nan", "nothing_finite", "one_finite", "subnormal"],
    )
    def test_peak(self, values: Any, fill: float, xy: Any, score: float, valid: bool) -> None:
        got = decode_heatmaps(single_map(5, 9, values, fill), refine="none")
        assert got.keypoints[0, 0].tolist() == list(xy)
        assert (got.score.item(), got.valid.item()) == (pytest.approx(score, abs=0), valid)

    @pytest.mark.parametrize("at", [(1, 3), (3, 1), (8, 3), (3, 6), (0, 0), (8, 6)], ids=str)
    def test_no_refinement_beside_the_border(self, at: tuple[int, int]) -> None:
        x, y = at
        around = {
            (max(x - 1, 0), y): -5.0,
            (x, max(y - 1, 0)): -5.0,
            (min(x + 1, 8), y): 5.0,
            (x, min(y + 1, 6)): 5.0,
        }
        assert decode_heatmaps(single_map(7, 9, around | {at: 9.0})).keypoints[0, 0].tolist() == [x, y]

    @pytest.mark.parametrize(
        ("right", "below", "expected"),
        [
            (1.0, -1.0, (4.25, 2.75)),
            (-1.0, 0.0, (3.75, 3.0)),
            (NAN, 1.0, (4.0, 3.25)),
            (INF, -INF, (4.25, 2.75)),
        ],
        ids=["up_left", "level", "nan", "infinite"],
    )
    def test_quarter_shift(self, right: float, below: float, expected: Any) -> None:
        got = decode_heatmaps(single_map(7, 9, {(4, 3): 9.0, (5, 3): right, (4, 4): below}))
        assert got.keypoints[0, 0].tolist() == list(expected)

    def test_image_coordinates_of_a_plain_box(self) -> None:
        """A 48-wide map over a 192-wide box: 4 image pixels a cell, around the centre."""
        center, scale = torch.tensor([[300.0, 200.0]]), torch.tensor([[0.96, 1.28]])
        got = decode_heatmaps(single_map(64, 48, {(30, 20): 1.0}), center, scale)
        torch.testing.assert_close(got.keypoints[0, 0], torch.tensor([300.0 + 4 * 6, 200.0 - 4 * 12]))

    def test_flip_swaps_mirrors_and_shifts(self) -> None:
        maps = torch.zeros(1, 2, 3, 6)
        flipped = torch.zeros(1, 2, 3, 6)
        flipped[0, 1, 1, 1] = 2.0  # column 1 is column 4 mirrored back, and 5 after the shift
        shifted = decode_heatmaps(maps, flipped=flipped, flip_index=(1, 0))
        assert shifted.keypoints[0, 0].tolist() == [5, 1]
        assert shifted.score[0].tolist() == [1.0, 0.0]
        still = decode_heatmaps(maps, flipped=flipped, flip_index=(1, 0), shift=False)
        assert still.keypoints[0, 0].tolist() == [4, 1]

    def test_the_first_column_stays_under_the_shift(self) -> None:
        flipped = torch.zeros(1, 1, 1, 4)
        flipped[..., 3] = 2.0  # column 0 mirrored back: it stays there, and is copied into column 1
        got = decode_heatmaps(torch.tensor([[[[0.5, 0.0, 0.0, 0.0]]]]), flipped=flipped, flip_index=[0])
        assert (got.keypoints[0, 0].tolist(), got.score.item()) == ([0, 0], 1.25)


class TestArguments:
    MAPS = torch.zeros(2, 3, 8, 6)
    BOX = torch.ones(2, 2)

    @pytest.mark.parametrize(
        ("args", "options", "error", "message"),
        [
            ((np.zeros((2, 3, 8, 6)),), {}, TypeError, "heatmaps: expected a torch.Tensor, got ndarray"),
            ((MAPS[0],), {}, ValueError, r"heatmaps: expected 4 dimensions, got shape \(3, 8, 6\)"),
            ((MAPS.int(),), {}, TypeError, "heatmaps: .* got torch.int32"),
            ((MAPS[:, :0],), {}, ValueError, r"heatmaps: .* got \(2, 0, 8, 6\)"),
            ((MAPS[..., :0],), {}, ValueError, r"heatmaps: .* got \(2, 3, 8, 0\)"),
            ((MAPS, BOX), {}, ValueError, "center and scale: give both"),
            ((MAPS, BOX[:1], BOX), {}, ValueError, r"center: expected shape \(2, 2\), got \(1, 2\)"),
            ((MAPS, BOX, BOX.to("meta")), {}, ValueError, "scale: expected a tensor on cpu, got one on meta"),
            ((MAPS,), {"flipped": MAPS}, ValueError, "flip_index: needed with flipped"),
            (
                (MAPS,),
                {"refine": True},
                ValueError,
                "refine: expected one of none, quarter, dark, .*, got True",
            ),
            (
                (MAPS,),
                {"refine": "DARK"},
                ValueError,
                "refine: expected one of none, quarter, dark, .*, got 'DARK'",
            ),
            (
                (MAPS,),
                {"blur_kernel": 12},
                ValueError,
                "blur_kernel: expected an odd number from 1 to 63, got 12",
            ),
            ((MAPS,), {"flipped": MAPS[:1], "flip_index": [0, 1, 2]}, ValueError, "flipped: expected shape"),
            (
                (MAPS,),
                {"flipped": MAPS.half(), "flip_index": [0, 1, 2]},
                TypeError,
                "flipped: .* got torch.float16",
            ),
            (
                (MAPS,),
                {"flipped": MAPS, "flip_index": [0, 2, 3]},
                ValueError,
                "flip_index: expected a permutation of 3",
            ),
            (
                (MAPS,),
                {"flipped": MAPS, "flip_index": torch.ones(3)},
                TypeError,
                "flip_index: expected integers",
            ),
            (
                (MAPS,),
                {"flipped": MAPS, "flip_index": torch.arange(4)},
                ValueError,
                "flip_index: expected shape",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_wrong(self, args: Any, options: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            decode_heatmaps(*args, **options)

    def test_flip_tensor_out_of_range(self, cpp: None) -> None:
        with pytest.raises(ValueError, match="flip_index: expected a permutation of 3 joints"):
            decode_heatmaps(self.MAPS, flipped=self.MAPS, flip_index=torch.tensor([0, 1, 3]))

    def test_flip_order_is_copied_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ops_decode._kept_order.cache_clear()
        made, make = [], ops_decode._make_order
        monkeypatch.setattr(ops_decode, "_make_order", lambda *args: made.append(args) or make(*args))
        maps = self.MAPS.to("meta")  # some device that is not the CPU
        orders = (1, 0, 2), [1, 0, 2], torch.tensor([1, 0, 2]), torch.tensor([1, 0, 2], dtype=torch.int32)
        with torch.inference_mode():
            kept = [ops_decode._flip_tensor(order, maps) for order in orders]
        assert made == [((1, 0, 2), maps.device)]
        assert all(order is kept[0] for order in kept)
        assert (kept[0].device, kept[0].dtype, kept[0].is_inference()) == (maps.device, torch.int64, False)
        assert ops_decode._flip_tensor((0, 1, 2), self.MAPS).tolist() == [0, 1, 2]
        changed = orders[2]
        changed[:2] = torch.tensor([0, 1])
        assert ops_decode._flip_tensor(changed, maps) is not kept[0]
        for _ in range(40):
            ops_decode._kept_order(tuple(torch.randperm(20).tolist()), maps.device)
        assert ops_decode._kept_order.cache_info().currsize == 32

    def test_flip_order_of_a_traced_call_is_not_kept(self) -> None:
        ops_decode._kept_order.cache_clear()
        with FakeTensorMode() as mode:
            order = ops_decode._flip_tensor((1, 0, 2), mode.from_tensor(self.MAPS))
        assert isinstance(order, FakeTensor)
        torch._dynamo.reset()
        compiled = torch.compile(decode_heatmaps, fullgraph=True, backend="aot_eager")
        maps = torch.randn(2, 3, 8, 6)
        options: Any = {"flipped": maps.flip(3), "flip_index": (1, 0, 2)}
        assert same(
            compiled(maps, **options), decode_heatmaps(maps, flipped=maps.flip(3), flip_index=[1, 0, 2])
        )
        assert ops_decode._kept_order.cache_info().misses == 1, "the eager call alone"

    def test_a_cpu_order_is_checked_on_any_device(self) -> None:
        with pytest.raises(ValueError, match="flip_index: expected a permutation of 3 joints"):
            ops_decode._flip_tensor(torch.tensor([0, 1, 3]), self.MAPS.to("meta"))

    def test_a_gradient_is_not_cut_in_silence(self) -> None:
        maps = torch.ones(1, 1, 4, 4, requires_grad=True)
        with pytest.raises(ValueError, match=r"heatmaps: requires grad.*heatmaps\.detach\(\)"):
            decode_heatmaps(maps)
        with torch.no_grad():
            assert decode_heatmaps(maps).score.item() == 1.0


class TestBackends:
    def test_explicit_cpp_refuses_float64(self, cpp: None) -> None:
        with pytest.raises(BackendUnavailableError, match=r"cpp: decode_heatmaps: .*float64"):
            decode_heatmaps(torch.zeros(1, 1, 4, 4, dtype=torch.float64))

    def test_auto_falls_back_with_one_line(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(backend, "_logged", set())
        maps = torch.randn(1, 2, 9, 9, dtype=torch.float64)
        with caplog.at_level(logging.INFO, "fastpose"), use_backend("auto"):
            got = [decode_heatmaps(maps) for _ in range(3)]
        assert same(got[2], reference.decode_heatmaps(maps))
        assert ["decode_heatmaps: using the PyTorch reference" in line for line in caplog.messages] == [True]

    def test_reference_never_calls_the_extension(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ops_decode, "_decode_op", None)
        maps = torch.randn(1, 2, 9, 9)
        with use_backend("reference"):
            assert same(decode_heatmaps(maps), reference.decode_heatmaps(maps))

    def test_without_the_extension(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_ext, "load", lambda: (None, "no compiler"))
        maps = torch.randn(1, 2, 9, 9)
        assert same(decode_heatmaps(maps), reference.decode_heatmaps(maps))
        with pytest.raises(BackendUnavailableError, match="cpp: no compiler"):
            set_backend("cpp")
        with pytest.raises(BackendUnavailableError, match="no compiler"):
            ops_decode._decode_op(maps, None, None, None, None, True, "none", 11)

    def test_a_cuda_error_is_raised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = types.SimpleNamespace(
            decode_cuda=lambda *_: 700,
            cuda_error_text=lambda code: f"error {code}",
        )
        stream = types.SimpleNamespace(cuda_stream=0)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
        with pytest.raises(RuntimeError, match="decode_heatmaps on cuda:0: error 700"):
            ops_decode._launch(module, None, torch.device("cuda:0"))


@pytest.mark.usefixtures("cpp")
class TestCompiler:
    def test_opcheck(self) -> None:
        maps, (center, scale) = torch.randn(2, 3, 8, 6), boxes(2)
        last = maps.to(memory_format=torch.channels_last)
        for heatmaps, refine in ((maps, "quarter"), (last, "dark")):
            for args in ((None, None, None, None), (heatmaps.flip(3), torch.arange(3), center, scale)):
                op = torch.ops.fastpose.decode_heatmaps.default
                torch.library.opcheck(op, (heatmaps, *args, True, refine, 11))

    @pytest.mark.parametrize("refine", ["none", "quarter", "dark"])
    def test_fullgraph(self, refine: str) -> None:
        torch._dynamo.reset()
        maps, (center, scale) = torch.randn(2, 3, 8, 6), boxes(2)

        def network(maps: Tensor, flip_index: Tensor) -> Decoded:
            flipped = maps.flip(3) * 0.5
            return decode_heatmaps(
                maps * 2, center, scale, flipped=flipped, flip_index=flip_index, refine=refine
            )

        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        order = torch.tensor([1, 0, 2])
        assert same(compiled(maps, order), network(maps, order))
        with use_backend("reference"):
            assert same(compiled(maps, order), network(maps, order))
