"""Exported networks, run by ONNX Runtime, OpenVINO or PyTorch: from the file to a network for predictions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from fastpose.errors import CheckpointError, ConfigError
from fastpose.infer.engines_open import ENGINES, SUFFIXES, Graph
from fastpose.models.meta import ModelMeta
from fastpose.models.network import PoseModel
from fastpose.models.reading import Reading, reading_of
from fastpose.nn.normalize import normalize_crops
from fastpose.reference.decode import Decoded, to_image
from fastpose.reference.udp import udp_to_image

if TYPE_CHECKING:
    from fastpose.infer.forward import ForwardOptions

StrPath = str | os.PathLike[str]

HALVES = ("float32", "bfloat16")


def open_graph(path: StrPath, engine: str | None = None, precision: str = "float32") -> Graph:
    """A file of `fastpose export`, ready to run on the CPU with as many threads as torch uses.

    Args:
        path: .onnx, or .pt2, which holds code of its own: open only those that you trust.
        engine: 'onnx' (ONNX Runtime, the default for .onnx), 'openvino' (where it is installed) or 'torch'
            (the only one for .pt2).
        precision: 'float32', or 'bfloat16', with which OpenVINO multiplies where the CPU can.

    Raises:
        CheckpointError: no such file, or not one of `fastpose export`.
        ConfigError: the engine does not run such files, or not in this precision.
        ExportError: a package is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    fitting = [name for name, suffix in SUFFIXES.items() if suffix == path.suffix]
    if not fitting:
        raise CheckpointError(f"{path}: not an exported network; they end with .onnx or .pt2")
    engine = engine or fitting[0]
    if engine not in ENGINES:
        raise ConfigError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    if engine not in fitting:
        raise ConfigError(f"{path}: engine {engine} does not run {path.suffix} files, {fitting[0]} does")
    if precision not in HALVES or (precision != "float32" and engine != "openvino"):
        raise ConfigError(f"precision: {engine} runs float32, openvino also bfloat16, got {precision!r}")
    return ENGINES[engine](path, precision)


def load_engine(path: StrPath, engine: str | None = None, precision: str = "float32") -> Engine:
    """An exported pose network for `fastpose.infer.forward` and `Predictor`; arguments as `open_graph`."""
    return Engine(open_graph(path, engine, precision), str(path))


class Engine(PoseModel):
    """An exported pose network in the place of one of `fastpose.models`: on the CPU, without parameters.

    `fastpose.infer.forward.forward_crops` gives it crops in place of images, and leaves to it what its graph
    does. CheckpointError for a graph that is not for poses.
    """

    has_modules = True  # of an exported hourglass

    def __init__(self, graph: Graph, source: str) -> None:
        if not isinstance(graph.spec.meta, ModelMeta):
            raise CheckpointError(
                f"{source}: a {graph.spec.meta.task} network, not one for poses; predict with the weights "
                "that it was exported from"
            )
        self.output = graph.spec.network  # type: ignore[misc, assignment]
        super().__init__(graph.spec.meta)
        self.graph, self.spec, self.source = graph, graph.spec, source

    def forward(self, crops: Tensor) -> Any:
        """Crops (B, H, W, 3) uint8 -> what the network gives; ConfigError where the graph finds keypoints."""
        if self.spec.decode:
            raise ConfigError(f"{self.source}: finds keypoints itself; call find()")
        found = self.graph(self._pictures(crops))
        if self.output == "queries":
            return found
        return tuple(found.values()) if self.output == "bins" else found["heatmaps"]

    def find(self, crops: Tensor, center: Tensor, scale: Tensor) -> Decoded:
        """Keypoints in the image of a graph that finds keypoints; arguments as `forward_crops`."""
        boxes = (center, scale) if self.spec.decode == "image" else ()
        found = self.graph(self._pictures(crops), *boxes)
        keypoints = found["keypoints"]
        if self.spec.decode == "crop":
            back = to_image if self.spec.unit == "size" else udp_to_image
            keypoints = back(keypoints, center, scale, *self.meta.input_size)
        return Decoded(keypoints, found["score"], found["valid"])

    def reading(self, refine: str, blur_kernel: int | Literal["auto"]) -> Reading:
        """How the output is read, as asked for; "auto" is what the graph does, else what its weights want."""
        found, spec = reading_of(self.meta, refine=refine, blur_kernel=blur_kernel), self.spec
        if spec.flip_test:
            found = found._replace(shift=spec.shift)
        if spec.decode is None:
            return found
        if refine == "auto":
            found = found._replace(refine=spec.refine)
        if blur_kernel == "auto":
            found = found._replace(blur_kernel=spec.blur_kernel)
        return found._replace(cell_offset=spec.cell_offset)

    def check(self, options: ForwardOptions) -> None:
        """ConfigError where the graph does something in another way than `options` want it."""
        spec = self.spec
        decodes = spec.decode is not None
        inside = {
            "flip_test": decodes or spec.flip_test,
            "shift": spec.flip_test,
            "refine": decodes and self.output == "heatmaps",
            "blur_kernel": decodes and spec.refine.startswith("dark"),
            "cell_offset": decodes and self.output == "heatmaps",
        }
        for name in (name for name, fixed in inside.items() if fixed):
            own, wanted = getattr(spec, name), getattr(options, name)
            if own != wanted:
                raise ConfigError(
                    f"{self.source}: was exported with {name}={own} inside, which is not {wanted}; "
                    "run it like that, or export it again"
                )

    def _pictures(self, crops: Tensor) -> Tensor:
        if self.spec.takes == "crops":
            return crops
        return normalize_crops(crops.cpu(), self.spec.meta.mean, self.spec.meta.std)
