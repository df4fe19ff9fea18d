"""People in whole pictures, in one line: a source in, results out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, Literal, overload

import numpy as np
import torch

from fastpose.errors import DataError
from fastpose.infer.boxes_in import with_boxes
from fastpose.infer.cutting import Warp
from fastpose.infer.detectors import Detector
from fastpose.infer.find_people import PeopleFinder
from fastpose.infer.follow import RATE, pick_following
from fastpose.infer.items import Item, open_source
from fastpose.infer.network_in import find_network, on_device, usual_keypoints
from fastpose.infer.pipeline import reading_threads
from fastpose.infer.predictor_options import (
    check_running,
    check_switches,
    check_using,
    crop_stages,
    forward_options,
    whole_number,
)
from fastpose.infer.result import Boxes, Keypoints, Result
from fastpose.infer.run_pictures import run_pictures
from fastpose.infer.smooth import OneEuro
from fastpose.infer.stages import Picture, Stages
from fastpose.infer.track import Tracker


class Predictor:
    """A network with everything needed to run it on pictures.

    Args:
        model: a name of `fastpose.models.list_models('pose')` with its `weights`, a network of
            fastpose.models, which is put into eval mode, a .safetensors that `fastpose train` or
            `save_weights` wrote, a run folder, or an .onnx or .pt2 of `fastpose export`.
        weights: what `fastpose.models.load_weights` reads, or a run folder.
        device: 'auto', 'cpu', 'cuda', 'cuda:N' or N.
        detector: finds people where no boxes are given. None and 'whole' take the whole picture as the
            box of one person (None says so once, loudly); 'people' is OpenCV's built-in detector, weak
            (see `PeopleDetector`); 'LIBRARY:MODEL' one of another library, such as
            'torchvision:fasterrcnn_resnet50_fpn_v2'; or a callable (see `fastpose.infer.detectors`).
        flip_test: average the mirrored picture in.
        refine, blur_kernel: as in `fastpose.ops.decode_heatmaps`; 'auto' is what the weights say they are
            read with, else what their codec is published with, and so is all else in how the output is read
            (`fastpose.models.reading`). The kernel is of 'dark' and 'dark_udp' alone.
        amp: 'none', 'auto', 'bf16' or 'fp16'.
        engine: what runs an exported file, as in `fastpose.infer.engines.open_graph`.
        batch_size: most persons in one forward pass, and most pictures read ahead of a result.
        track, smooth: number people from picture to picture, and calm their joints; True, or a function
            that makes a `Tracker` or `OneEuro` for each video. rate: frames a second where there is no time.
        upright: turn files, PIL images and videos as their metadata says, as cv2.imread does. Without it
            pixels are taken as they are stored, as COCO's annotations and the official code do.
        workers: threads that read and cut picture files ahead of the network; 'auto' chooses by the device
            and the cores, 0 is none. The results are the same.
        warp: who cuts the crops, with the same pixels: 'gpu' the network's device, to which only the parts
            that they show travel, 'cpu' the threads, 'auto' a GPU that there is.
        compile: False, True, 'default' or 'max-autotune': the network through torch.compile.
        graph: on a GPU hold the network with all around it as CUDA graphs, see `fastpose.infer.graphs`.
        fold: run a copy of the network with every BatchNorm inside the convolution before it, where that is
            faster; what becomes of the network later does not reach it. None: unless a network is given.
        options: of the model's factory, for a name: `num_joints`, `keypoints`, `input_size`,
            `channel_order`, `mean`, `std`, and how its output is read: `shift`, `cell_offset`, `background`.

    Raises ConfigError for an argument that cannot be, CheckpointError for weights that cannot be used.
    """

    def __init__(
        self,
        model: torch.nn.Module | str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str] | None = None,
        device: str | int = "auto",
        detector: str | Detector | None = None,
        flip_test: bool = True,
        refine: str = "auto",
        blur_kernel: int | Literal["auto"] = "auto",
        amp: str = "none",
        engine: str | None = None,
        batch_size: int = 32,
        track: bool | Callable[[], Tracker] = False,
        smooth: bool | Callable[[], OneEuro] = False,
        rate: float = RATE,
        upright: bool = True,
        workers: int | Literal["auto"] = "auto",
        warp: Warp = "auto",
        compile: bool | str = False,
        graph: bool = True,
        fold: bool | None = None,
        **options: Any,
    ) -> None:
        check_using(flip_test, refine, blur_kernel, upright, track, smooth, rate)
        check_running(device, amp, batch_size, workers, warp, compile, graph, fold)
        network = find_network(model, weights, engine=engine, amp=amp, **options)
        self.meta = network.meta
        self.keypoints = self.meta.keypoints or usual_keypoints(self.meta.num_joints)
        self.options = forward_options(network, device, self.keypoints, amp, flip_test, refine, blur_kernel)
        self.device = self.options.device
        self.find = PeopleFinder(detector)
        self.following = pick_following(track, smooth, rate, self.keypoints.sigmas)
        self.batch_size, self.upright = whole_number(batch_size), upright
        self.workers = reading_threads(workers, self.device)
        owned = not isinstance(model, torch.nn.Module)  # one that is given may go on training
        self.model = on_device(network, self.device, self.options.dtype, fold=owned if fold is None else fold)
        self.cut, self.forward = crop_stages(
            network, self.model, self.options, warp, self.batch_size, compile, graph
        )

    @property
    def detector(self) -> Detector | None:
        """What looks for people where no boxes are given; None where the whole picture is one."""
        return self.find.detector

    def warm_up(self, *people: int) -> Predictor:
        """Gets over with what the first batches of these numbers of persons would wait for: compiling,
        capturing and first allocations. The predictor itself is returned."""
        self.forward.warm_up(people, self.meta.input_size)
        return self

    @overload
    def __call__(
        self, source: Any, boxes: Any = None, box_score: Any = None, *, stream: Literal[False] = False
    ) -> list[Result]: ...
    @overload
    def __call__(
        self, source: Any, boxes: Any = None, box_score: Any = None, *, stream: Literal[True]
    ) -> Iterator[Result]: ...
    def __call__(
        self, source: Any, boxes: Any = None, box_score: Any = None, *, stream: bool = False
    ) -> list[Result] | Iterator[Result]:
        """One `Result` for each picture of the source, in its order.

        Args:
            source: the path of a picture, folder, glob or video; the number of a camera (0 or '0'); an array
                (H, W, 3) uint8 in BGR order, as cv2 reads it; a PIL image; a tensor (3, H, W) in RGB order,
                as torchvision reads it; a list or generator of these, or an array or tensor with one more
                dimension. See `fastpose.infer.images_in.to_bgr` for grey, alpha, 16 bits and CMYK.
            boxes: people's boxes (x, y, width, height) in pixels: (N, 4) for one picture, one such entry a
                picture for several (None: look for people), a mapping from paths, or the path of a json in
                COCO detection format. Boxes that are not finite, have no area or lie outside the picture are
                skipped with a reason.
            box_score: (N,) for one picture, one such entry a picture for several; 1 where not given.
            stream: return an iterator, which reads on as it is asked; results then carry their pictures. A
                camera needs it, and a long video.

        A picture that cannot be read raises its ImageError where it is the whole source, and is a Result with
        `error` among several. Arguments of another form raise DataError, or ConfigError for `stream`.
        """
        check_switches(stream=stream)
        pictures = open_source(source, upright=self.upright)
        if pictures.endless and not stream:
            raise DataError(f"camera {source} never ends: use stream=True")
        items = with_boxes(pictures, boxes, box_score)
        follow = self.following
        results = self._results(items, strict=pictures.single, keep_pixels=stream or follow is not None)
        if follow is not None:
            results = follow(results, keep_pixels=stream, upright=self.upright)
        return results if stream else list(results)

    def run_items(self, items: Iterable[Item]) -> Iterator[Result]:
        """`stream=True` for pictures that no source of `__call__` holds, such as those of a tar, without
        pictures in the results."""
        return self._results(items, strict=False, keep_pixels=False)

    def _results(self, items: Iterable[Item], *, strict: bool, keep_pixels: bool) -> Iterator[Result]:
        stages = Stages(
            read=lambda item: item.load(),
            find=self.find,
            cut=self.cut,
            forward=self.forward,
            gather=partial(self._gather, keep_pixels),
            batch_size=self.batch_size,
            keep_pixels=keep_pixels,
            workers=0 if strict else self.workers,
            in_flight=self.forward.in_flight,
        )
        with closing(run_pictures(items, stages)) as results:
            for result in results:
                if strict and result.error is not None:
                    raise result.error
                yield result

    def _gather(self, keep_pixels: bool, picture: Picture) -> Result:
        item, found, joints = picture.item, picture.found, self.keypoints.num_joints
        xy = np.array([row[0] for row in picture.joints], np.float32).reshape(-1, joints, 2)
        conf = np.array([row[1] for row in picture.joints], np.float32).reshape(-1, joints)
        valid = np.array([row[2] for row in picture.joints], bool).reshape(-1, joints)
        shape = picture.shape
        return Result(
            name=item.name,
            orig_shape=shape,
            boxes=Boxes(found.boxes, found.conf, shape),
            keypoints=Keypoints(xy, conf, valid, shape),
            keypoint_set=self.keypoints,
            found_by=found.by,
            path=item.path,
            index=item.index,
            frame=item.frame,
            time=item.time,
            image_id=found.image_id,
            skipped=found.skipped,
            error=picture.error,
            speed=picture.speed,
            pixels=picture.image if keep_pixels else item.load if item.again else None,
        )
