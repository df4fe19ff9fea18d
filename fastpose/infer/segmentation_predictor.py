"""The class of every pixel in one line: a source in, label maps out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Literal, cast, overload

import numpy as np
import torch

from fastpose.device import autocast_dtype, pick_device
from fastpose.errors import ConfigError, DataError
from fastpose.infer.items import Item, open_source
from fastpose.infer.network_in import on_device
from fastpose.infer.pipeline import reading_threads
from fastpose.infer.predictor_options import check_switches
from fastpose.infer.segmentation_forward import Window, check_passes, class_probabilities
from fastpose.infer.segmentation_network_in import classes_of, find_segmentation
from fastpose.infer.segmentation_read import read_pictures
from fastpose.infer.segmentation_result import SegmentationResult
from fastpose.infer.stages import Picture, timed
from fastpose.models import SegmentationModel


class Segmenter:
    """A segmentation network with everything needed to run it on pictures.

    Args:
        model: a name of `fastpose.models.list_models('segmentation')` with its `weights`, a network of
            fastpose.models, which is put into eval mode, a .safetensors that `fastpose train` or
            `save_weights` wrote, or a run folder.
        weights: what `fastpose.models.load_weights` reads, or a run folder.
        device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
        flip_test: average the logits of the mirrored picture in.
        scales: sizes of the picture whose probabilities are averaged, 1 for its own.
        window: (width, height) of the windows that a picture goes through the network in, None for the whole
            of it, or 'auto': whole up to two megapixels, in windows of 1024x1024 above, so that the network
            needs no more memory for a larger picture. The probabilities themselves need 4 bytes for each
            class and pixel, and as much again with other scales than 1.
        stride_rate: distance between windows as a part of their size, above 0 and at most 1.
        average: 'softmax' for the mean of probabilities over scales and windows, or 'exp' for that of
            exp(logits), as published figures are made.
        amp: 'none', 'auto', 'bf16' or 'fp16'.
        probabilities: results carry those of all classes, not only the likeliest one.
        upright: turn files, PIL images and videos as their metadata says, as cv2.imread does.
        workers: threads that read picture files ahead of the network; 'auto' chooses by the device and the
            cores, 0 is none.
        options: of the model's factory, for a name: `classes`, `align_corners`, `channel_order`, `mean`,
            `std`, `input_size`, which is the least that a window of 'auto' has.

    `classes` are the network's, see `fastpose.infer.segmentation_network_in.classes_of`. Raises ConfigError
    for an argument that cannot be, CheckpointError for weights that cannot be used.
    """

    def __init__(
        self,
        model: torch.nn.Module | str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str] | None = None,
        device: str = "auto",
        flip_test: bool = True,
        scales: Sequence[float] = (1.0,),
        window: Window = "auto",
        stride_rate: float = 2 / 3,
        average: str = "softmax",
        amp: str = "none",
        probabilities: bool = False,
        upright: bool = True,
        workers: int | Literal["auto"] = "auto",
        **options: Any,
    ) -> None:
        check_switches(flip_test=flip_test, probabilities=probabilities, upright=upright)
        check_passes(window, stride_rate, scales, average)
        if not isinstance(device, str | torch.device):
            raise ConfigError(f"device: expected auto, cpu, cuda or cuda:N, got {device!r}")
        self.device = pick_device(str(device))
        self.dtype = autocast_dtype(amp, self.device)
        self.workers = reading_threads(workers, self.device)
        network = find_segmentation(model, weights, **options)
        self.meta, self.classes = network.meta, classes_of(network.meta)
        self.flip_test, self.scales, self.window, self.stride_rate = flip_test, scales, window, stride_rate
        self.average, self.probabilities, self.upright = average, probabilities, upright
        # A network that was given is somebody's, who may go on training it.
        placed = on_device(network, self.device, self.dtype, fold=not isinstance(model, torch.nn.Module))
        self.model = cast(SegmentationModel, placed)

    @overload
    def __call__(self, source: Any, *, stream: Literal[False] = False) -> list[SegmentationResult]: ...
    @overload
    def __call__(self, source: Any, *, stream: Literal[True]) -> Iterator[SegmentationResult]: ...
    def __call__(
        self, source: Any, *, stream: bool = False
    ) -> list[SegmentationResult] | Iterator[SegmentationResult]:
        """One `SegmentationResult` for each picture of the source, in its order.

        Args:
            source: what `fastpose.Predictor` takes: the path of a picture, folder, glob or video; the number
                of a camera; an array (H, W, 3) uint8 in BGR order; a PIL image; a tensor (3, H, W) in RGB
                order; a list or generator of these, or an array or tensor with one more dimension.
            stream: return an iterator, which reads on as it is asked; results then carry their pictures. A
                camera needs it, and a long video.

        A picture that cannot be read raises its ImageError where it is the whole source, and is a result with
        `error` among several. A source of another kind raises DataError.
        """
        check_switches(stream=stream)
        pictures = open_source(source, upright=self.upright)
        if pictures.endless and not stream:
            raise DataError(f"camera {source} never ends: use stream=True")
        results = self._results(pictures.items, strict=pictures.single, keep_pixels=stream)
        return results if stream else list(results)

    def _results(
        self, items: Iterable[Item], *, strict: bool, keep_pixels: bool
    ) -> Iterator[SegmentationResult]:
        with closing(read_pictures(items, 0 if strict else self.workers)) as pictures:
            for picture in pictures:
                if strict and picture.error is not None:
                    raise picture.error
                yield self._segmented(picture, keep_pixels)

    def _segmented(self, picture: Picture, keep_pixels: bool) -> SegmentationResult:
        labels, probabilities = np.zeros((0, 0), np.uint8), None
        if picture.image is not None:
            with timed(picture, "forward"):
                labels, probabilities = self._forward(picture.image)
        item = picture.item
        return SegmentationResult(
            name=item.name,
            labels=labels,
            classes=self.classes,
            probabilities=probabilities,
            path=item.path,
            index=item.index,
            frame=item.frame,
            time=item.time,
            error=picture.error,
            speed={stage: picture.speed[stage] for stage in ("read", "forward") if stage in picture.speed},
            pixels=picture.image if keep_pixels else item.load if item.again else None,
        )

    def _forward(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """(H, W, 3) uint8 BGR -> the likeliest class of every pixel, the lowest of equal ones, and, where
        they are asked for, the probabilities of all."""
        pixels = image[..., ::-1] if self.meta.channel_order == "rgb" else image
        (found,) = class_probabilities(
            self.model,
            torch.from_numpy(np.ascontiguousarray(pixels))[None],
            device=self.device,
            dtype=self.dtype,
            window=self.window,
            stride_rate=self.stride_rate,
            scales=self.scales,
            flip=self.flip_test,
            average=self.average,
        )
        labels = found.argmax(0).to(torch.uint8).cpu().numpy()
        return labels, found.cpu().numpy() if self.probabilities else None
