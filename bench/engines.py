"""Networks of other projects, where they are installed: timm's trunk, ONNX Runtime, OpenVINO, TensorRT."""

from __future__ import annotations

import copy
import importlib
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.rows import Side, Unavailable


def load(module: str, package: str = "") -> Any:
    """The module; Unavailable with the reason where it is not there or does not start."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        lacks = f" whole, it lacks {error.name}" if error.name != module else ""
        raise Unavailable(f"{package or module} is not installed{lacks}") from error
    except Exception as error:  # a library built for another torch fails in its own way
        raise Unavailable(f"{package or module}: {type(error).__name__}: {error}") from error


class Trunk(nn.Module):
    """timm's features of the finest branch, and the 1x1 convolution to heatmaps."""

    def __init__(self, trunk: nn.Module, final_layer: nn.Module) -> None:
        super().__init__()
        self.trunk, self.final_layer = trunk, final_layer

    def forward(self, images: Tensor) -> Tensor:
        return self.final_layer(self.trunk(images)[0])


def timm_network(network: nn.Module) -> nn.Module:
    """timm's HRNet of the same width with the weights of `network`, in the mode it is in.

    Its last exchange has all four rows; three of them keep their own weights, and nothing reads them.

    Raises:
        Unavailable: timm is not installed.
    """
    timm = load("timm")
    source: Any = copy.deepcopy(network)
    name = source.meta.model
    trunk = timm.create_model(
        name, features_only=True, feature_location="", out_indices=(1,), pretrained=False
    )
    device = next(source.parameters()).device
    missing, unexpected = trunk.load_state_dict(source.state_dict(), strict=False)
    unread = [key for key in missing if "stage4.2.fuse_layers." not in key]
    strangers = [key for key in unexpected if not key.startswith("final_layer.")]
    if unread or strangers:
        raise Unavailable(f"timm: {name} has other weights: {', '.join([*unread, *strangers][:3])}")
    return Trunk(trunk, source.final_layer).to(device).train(network.training)


def onnx_side(network: nn.Module, images: Tensor, provider: str) -> Side:
    """A session of ONNX Runtime: images like these -> heatmaps, in float32, on a GPU in float16.

    Args:
        provider: name of ONNX Runtime's execution provider.

    Raises:
        Unavailable: ONNX Runtime, its exporter or the provider is not there.
    """
    runtime = load("onnxruntime")
    if provider not in runtime.get_available_providers():
        raise Unavailable(
            f"this onnxruntime has no {provider}, only {', '.join(runtime.get_available_providers())}"
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    dtype = torch.float16 if images.is_cuda else torch.float32
    given = images.to(dtype).contiguous()
    session = runtime.InferenceSession(_export(network, given), options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise Unavailable(f"onnxruntime: {provider} did not start")
    if not images.is_cuda:
        return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    return _bound(session, given, network)


def _bound(session: Any, given: Tensor, network: nn.Module) -> Side:
    """Inputs and outputs stay on the GPU."""
    with torch.no_grad():
        output = torch.empty_like(network.eval()(given.float()), dtype=given.dtype).contiguous()
    binding = session.io_binding()
    for bind, name, tensor in (
        (binding.bind_input, "images", given),
        (binding.bind_output, "heatmaps", output),
    ):
        bind(name, "cuda", 0, np.float16, tuple(tensor.shape), tensor.data_ptr())

    def run(images: Tensor) -> Tensor:
        given.copy_(images)
        torch.cuda.current_stream().synchronize()  # the session has a stream of its own
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return output

    return run


def openvino_side(network: nn.Module, images: Tensor) -> Side:
    """A network compiled by OpenVINO for this CPU, in the precision that it chooses.

    Raises:
        Unavailable: OpenVINO is not installed.
    """
    openvino = load("openvino")
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    given = images.contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(plain, example_input=given, input=list(given.shape))
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.compile_model(model, "CPU", threads).create_infer_request()

    def run(images: Tensor) -> Tensor:
        found = request.infer([images.numpy()], share_inputs=True, share_outputs=True)
        return torch.from_numpy(found[0])

    return run


def tensorrt_side(network: nn.Module, images: Tensor) -> Side:
    """A network compiled by Torch-TensorRT in float16.

    Raises:
        Unavailable: Torch-TensorRT is not installed.
    """
    compiler = load("torch_tensorrt", "torch-tensorrt")
    half = copy.deepcopy(network).to(torch.float16, memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    given = images.half().contiguous()
    with torch.no_grad():
        engine = compiler.compile(half, inputs=[given], enabled_precisions={torch.float16})
    return lambda images: engine(images.half())


def _export(network: nn.Module, images: Tensor) -> bytes:
    load("onnx")
    plain: Any = copy.deepcopy(network).to(images.dtype, memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        path = Path(folder) / "network.onnx"
        torch.onnx.export(
            plain,
            (images,),
            path,
            dynamo=False,
            input_names=["images"],
            output_names=["heatmaps"],
            opset_version=17,
        )
        return path.read_bytes()
