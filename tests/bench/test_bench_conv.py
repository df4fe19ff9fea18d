"""The rows of convolutions, the shapes they are declared for, and the probe of cuDNN's fused pattern."""

import json

import pytest
import torch

import bench.bench_conv as conv_rows
from bench import probe_cudnn
from bench.roofline import trace
from bench.shapes import Shape, convolutions, distinct_convolutions
from fastpose.models import create_model

NO_CUDA = not torch.cuda.is_available()


def draw(device="cpu"):
    return torch.Generator(device=device).manual_seed(5)


def test_convolutions_are_those_of_the_whole_network():
    with torch.device("meta"):
        network = create_model("hrnet_w48")
    found = convolutions(trace(network, (192, 256)), (192, 256))
    assert set(distinct_convolutions(48, (192, 256))) == set(found)
    assert (len(found), sum(found.values())) == (28, 293)
    assert sum(shape.macs * count for shape, count in found.items()) == 15_691_825_152
    assert found[Shape(48, 48, 3, 1, 48, 64)] == 64
    assert str(Shape(48, 96, 3, 2, 48, 64)) == "3x3s2-48to96-64x48"


@pytest.mark.parametrize("which", conv_rows.PASSES)
@pytest.mark.parametrize("shape", [Shape(8, 16, 3, 2, 12, 16), Shape(16, 8, 1, 1, 6, 8)], ids=str)
def test_convolution_rows_pass_their_checks(which, shape):
    case = conv_rows.case(shape, which, 2, device="cpu")
    inputs = case.inputs(draw())
    case.check(*inputs)
    assert case.limit.bytes == sum(tensor.nbytes for tensor in inputs)
    assert case.limit.flops == 2 * 2 * shape.macs


def test_a_wrong_convolution_fails_its_row(monkeypatch):
    case = conv_rows.case(Shape(8, 16, 3, 1, 12, 16), "fprop", 2, device="cpu")
    right = conv_rows.convolve
    monkeypatch.setattr(conv_rows, "convolve", lambda *args: 1.05 * right(*args))
    with pytest.raises(AssertionError, match="fprop: relative L2 error"):
        case.check(*case.inputs(draw()))


class Node:
    def __init__(self, kind, options):
        self.kind, self.options, self.output, self.dtype = kind, options, False, None

    def set_output(self, on):
        self.output = on
        return self

    def set_data_type(self, dtype):
        self.dtype = dtype
        return self


class Graph:
    """What a graph of cudnn-frontend would hold."""

    def __getattr__(self, kind):
        def add(**options):
            return [Node(kind, options) for _ in "12"] if kind == "genstats" else Node(kind, options)

        return add


def test_the_probed_pattern(monkeypatch):
    monkeypatch.setattr(probe_cudnn, "BATCH", 2)
    inputs = probe_cudnn.draw(32, 8, 6, torch.bfloat16, "cpu")
    given, (y, total, squares) = probe_cudnn.describe_pattern(Graph(), inputs, "bfloat16", "float32")
    assert [node.options["name"] for node in given] == ["x", "weight", "scale", "bias"]
    assert given[0].options["stride"] == [32 * 48, 1, 32 * 6, 32]
    chain = [y, y.options["image"]]
    while "input" in chain[-1].options:
        chain.append(chain[-1].options["input"])
    assert [node.kind for node in chain] == ["conv_fprop", "relu", "bias", "scale", "tensor"]
    assert (chain[-1], y.options["weight"]) == (given[0], given[1])
    assert total.options["input"] is squares.options["input"] is y
    assert [(node.output, node.dtype) for node in (y, total, squares)] == [
        (True, None),
        *[(True, "float32")] * 2,
    ]


def test_what_the_probe_expects():
    ones = torch.ones(1, 1, 3, 3)
    inputs = probe_cudnn.Inputs(ones, ones, torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), -1.0))
    y, total, squares = probe_cudnn.expected_outputs(inputs)
    assert y[0, 0].tolist() == [[8, 12, 8], [12, 18, 12], [8, 12, 8]]
    assert (total.item(), squares.item()) == (98, 4 * 64 + 4 * 144 + 324)


@pytest.mark.skipif(not NO_CUDA, reason="of a machine without a GPU")
def test_the_probe_says_why_it_skips(tmp_path):
    assert probe_cudnn.main([str(tmp_path / "probe.json")]) == 0
    assert (
        json.loads((tmp_path / "probe.json").read_text())["skipped"]
        == "needs a CUDA device, and torch finds none"
    )


@pytest.mark.gpu
@pytest.mark.skipif(NO_CUDA, reason="needs a CUDA device")
@pytest.mark.parametrize("which", conv_rows.PASSES)
def test_cuda_convolutions_pass_their_checks(which):
    case = conv_rows.case(Shape(48, 48, 3, 1, 48, 64), which, 4)
    case.check(*case.inputs(draw("cuda")))
