"""The network for predictions: batches of few sizes, each compiled or held as a CUDA graph of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from fastpose.errors import ConfigError
from fastpose.infer.engines import Engine
from fastpose.infer.forward import ForwardOptions, forward_crops
from fastpose.infer.parts import PartWarp
from fastpose.infer.stages import Crop, Crops, Joints
from fastpose.nn.compiling import compiled
from fastpose.nn.graph import WARMUP, StepGraph


def bucket_of(count: int, largest: int) -> int:
    """The size of batch in which `count` crops travel: the next power of two, and `largest` at most."""
    return min(1 << (count - 1).bit_length(), largest)


def buckets_up_to(largest: int) -> list[int]:
    """Every answer of `bucket_of`: 1, 2, 4, 8, ... and `largest` itself."""
    return [*(1 << power for power in range((largest - 1).bit_length())), largest]


class CropForward:
    """Crops to keypoints by `forward_crops`, without a wait for the device until the joints are asked for.

    Where the network is compiled, or on a GPU runs as a CUDA graph, a batch is filled with black crops to the
    next of a few sizes (`bucket_of`), since each size is compiled or captured by itself; their rows are
    dropped. A graph holds all from the bytes of the crops to the keypoints, with the branches of the network
    side by side (`fastpose.nn.streams`), and what comes back is one tensor. The first batches of a size run
    ungraphed, see `fastpose.nn.graph.StepGraph`; `warm_up` gets that over with.

    Args:
        model: on its device, in eval mode.
        options: as for `forward_crops`.
        largest: most crops in a batch.
        compile: False, True, 'default' or 'max-autotune', see `fastpose.nn.compiling`.
        graph: whether to capture on a GPU. Where it cannot be, `reason` says why.
        warp: cuts the crops of batches that hold parts of pictures, in front of the graph.

    Raises ConfigError for a `compile` that is not known, or with an exported network.
    """

    def __init__(
        self,
        model: nn.Module,
        options: ForwardOptions,
        *,
        largest: int = 32,
        compile: bool | str = False,
        graph: bool = True,
        warp: PartWarp | None = None,
    ) -> None:
        if compile and isinstance(model, Engine):
            raise ConfigError(f"compile={compile!r}: {model.source} is an exported network, compiled already")
        self.options, self.largest, self._warp = options, largest, warp
        self._model = compiled(model, compile)
        self._compiled = bool(compile)
        self._steps = StepGraph(
            self._body,
            options.device,
            why_not="" if graph else "it was switched off",
            quiet=not graph,
            what="the network",
            max_shapes=len(buckets_up_to(largest)),
        )

    @property
    def reason(self) -> str:
        """Why there is no CUDA graph; empty where there is, or will be after the first batches."""
        return self._steps.reason

    @property
    def in_flight(self) -> int:
        """Batches that are worth starting before the joints of the one before are read."""
        return int(self.options.device.type == "cuda")

    @torch.inference_mode()
    def __call__(self, crops: Crops) -> Callable[[], Joints]:
        """Starts 1 to `largest` crops, center and scale float32; what is returned waits for their joints.

        It may be called after one more batch was started, and has to be before a second one.
        """
        count = len(crops.pixels)
        size = bucket_of(count, self.largest) if self._compiled or not self.reason else count
        batch = {"center": self._host(crops.center, size), "scale": self._host(crops.scale, size)}
        return self._reader(self._steps({"pixels": self._pixels(crops, size), **batch}), count)

    def warm_up(self, sizes: Iterable[int], input_size: tuple[int, int]) -> None:
        """Compiles and captures what batches of these numbers of crops (width, height) need."""
        width, height = input_size
        for size in sizes:
            place = [None, None] if self._warp is None else [np.eye(2, 3), np.zeros(2, np.int32)]
            crop = Crop(np.zeros((height, width, 3), np.uint8), *np.ones((2, 2), np.float32), *place)
            for _ in range(WARMUP + 1):
                self(Crops.of([crop] * size))()

    def _pixels(self, crops: Crops, size: int) -> Tensor:
        """(size, H, W, 3) uint8, the last ones black; on the device where they are cut there."""
        if isinstance(crops.pixels, np.ndarray):
            return self._host(crops.pixels, size)
        if self._warp is None:
            raise ValueError("crops: parts of pictures need warp=PartWarp(...)")
        return self._warp(crops, size)

    def _host(self, array: np.ndarray, size: int) -> Tensor:
        """The rows as a tensor of `size` rows, the last ones zero, and pinned for a GPU."""
        given = torch.from_numpy(array)
        pinned = self.options.device.type == "cuda"
        if len(given) == size and not pinned:
            return given
        filled = torch.empty((size, *given.shape[1:]), dtype=given.dtype, pin_memory=pinned)
        filled[: len(given)] = given
        filled[len(given) :] = 0
        return filled

    def _body(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, K, 4) float32: x, y, score and whether it is valid, so that one copy brings all to the host."""
        found = forward_crops(self._model, batch["pixels"], batch["center"], batch["scale"], self.options)
        keypoints, score, valid = found
        return torch.cat(
            [keypoints.float(), score.float()[..., None], valid.to(torch.float32)[..., None]], dim=-1
        )

    def _reader(self, packed: Tensor, count: int) -> Callable[[], Joints]:
        if not packed.is_cuda:
            joints = _joints(packed, count)
            return lambda: joints
        host = packed.to("cpu", non_blocking=True)  # pinned; before a later replay writes `packed` again
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(packed.device))

        def read() -> Joints:
            copied.synchronize()
            return _joints(host, count)

        return read


def _joints(packed: Tensor, count: int) -> Joints:
    """The joints of the first `count` rows, in memory of their own."""
    rows = packed.numpy()[:count]
    return Joints(rows[..., :2].copy(), rows[..., 2].copy(), rows[..., 3] > 0.5)
