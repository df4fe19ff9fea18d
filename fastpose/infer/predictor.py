"""People in whole pictures: boxes in, keypoints in image pixels out."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch

from fastpose.data.affine import box_to_center_scale, get_affine_transform, warp_crop
from fastpose.data.images import MAX_SIDE
from fastpose.device import autocast_dtype, pick_device
from fastpose.errors import CheckpointError, DataError
from fastpose.infer.forward import ForwardOptions, forward_crops
from fastpose.keypoints import COCO_17, MPII_16, KeypointSet
from fastpose.models import PoseModel, load_model
from fastpose.reference.decode import check_refinement

BATCH = 32


@dataclass
class Poses:
    """N persons of one picture: keypoints (N, K, 2) float32 image pixels, score (N, K) float32, boxes (N, 4)
    xywh float64, box_score (N,), and `skipped`: one line for each box that could not be used."""

    keypoints: np.ndarray
    score: np.ndarray
    boxes: np.ndarray
    box_score: np.ndarray
    skipped: list[str]


class Predictor:
    """A network with everything needed to run it on pictures, all of it read from its weights file."""

    def __init__(
        self,
        model: torch.nn.Module | str | os.PathLike[str],
        *,
        device: str = "auto",
        flip_test: bool = True,
        refine: str = "quarter",
        blur_kernel: int = 11,
        amp: str = "none",
    ) -> None:
        """model: a fastpose network, which is put into eval mode, or the .safetensors that `fastpose train`
        or `save_weights` wrote; refine and blur_kernel as in `fastpose.ops.decode_heatmaps`."""
        check_refinement(refine, blur_kernel)
        network = model if isinstance(model, torch.nn.Module) else load_model(model)
        if not isinstance(network, PoseModel):
            raise TypeError(f"model: expected a network of fastpose.models, got {type(network).__name__}")
        self.meta = network.meta
        self.keypoints = self.meta.keypoints or _usual_keypoints(self.meta.num_joints)
        self.device = pick_device(device)
        self.model = network.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.options = ForwardOptions(
            self.device,
            self.keypoints.flip_index,
            flip_test=flip_test,
            refine=refine,
            blur_kernel=blur_kernel,
            dtype=autocast_dtype(amp, self.device),
            mean=self.meta.mean,
            std=self.meta.std,
        )

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray | None = None, box_score: np.ndarray | None = None
    ) -> Poses:
        """image (H, W, 3) uint8 BGR, as cv2 reads it; boxes (N, 4) xywh pixels, the whole picture if None.

        A box that is not finite, has no area or lies outside the picture is skipped with a reason; arguments
        of another form raise DataError.
        """
        height, width = _check_image(image).shape[:2]
        given = _rows("boxes", [[0, 0, width, height]] if boxes is None else boxes, 4)
        scores = np.ones(len(given)) if box_score is None else _rows("box_score", box_score, 1)[:, 0]
        if len(scores) != len(given):
            raise DataError(f"box_score: {len(scores)} scores for {len(given)} boxes")
        reasons = [unusable_box(box, width, height) for box in given]
        keep = np.array([reason is None for reason in reasons], dtype=bool)
        skipped = [f"box {i} {given[i].tolist()}: {reason}" for i, reason in enumerate(reasons) if reason]
        keypoints, score = self._run(image, given[keep])
        return Poses(keypoints, score, given[keep].astype(np.float64), scores[keep], skipped)

    def _run(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = self.meta.input_size
        joints = self.keypoints.num_joints
        found = [(np.zeros((0, joints, 2), np.float32), np.zeros((0, joints), np.float32))]
        for start in range(0, len(boxes), BATCH):
            center, scale = box_to_center_scale(boxes[start : start + BATCH], size[0] / size[1])
            warped = [
                warp_crop(image, get_affine_transform(c, s, 0.0, size), size)
                for c, s in zip(center, scale, strict=True)
            ]
            batch = np.stack(warped)
            if self.meta.channel_order == "rgb":
                batch = np.ascontiguousarray(batch[..., ::-1])
            crops, centers, scales = map(torch.from_numpy, (batch, center, scale))
            keypoints, score, valid = forward_crops(self.model, crops, centers, scales, self.options)
            shown = torch.where(valid[..., None], keypoints, torch.nan)
            found.append((shown.cpu().numpy(), score.cpu().numpy()))
        return tuple(np.concatenate(columns) for columns in zip(*found, strict=True))  # type: ignore[return-value]


def _check_image(image: object) -> np.ndarray:
    if image is None:
        raise DataError("image is None: cv2.imread gives that for a file that it cannot read")
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        got = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(f"image must be an array (H, W, 3) uint8 in BGR order, got {got}")
    if not image.size or max(image.shape) > MAX_SIDE:
        raise DataError(f"image: its sides must be from 1 to {MAX_SIDE} pixels, got {image.shape}")
    return image


def _rows(name: str, values: object, columns: int) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: must hold numbers: {error}") from error
    if array.size % columns or (array.size and columns > 1 and array.shape[-1] != columns):
        raise DataError(f"{name}: expected (N, {columns}), got {array.shape}")
    return array.reshape(-1, columns)


def unusable_box(box: np.ndarray, width: int, height: int) -> str | None:
    """Why a box (x, y, w, h) cannot be cut out of a picture of this size, or None."""
    if not np.isfinite(box).all():
        return "not finite"
    x, y, w, h = box
    if w < 1 or h < 1:
        return "less than one pixel wide or high"
    if w > 1e5 or h > 1e5:
        return "more than 100,000 pixels wide or high"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "outside the picture"
    return None


def _usual_keypoints(num_joints: int) -> KeypointSet:
    for known in (COCO_17, MPII_16):
        if known.num_joints == num_joints:
            return known
    raise CheckpointError(
        f"the weights have {num_joints} joints and do not say which; "
        "create the model with keypoints=KeypointSet(...)"
    )
