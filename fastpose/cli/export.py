"""`fastpose export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastpose.cli._common import blur_kernel, new_verb
from fastpose.cli._network import unknown_network

EPILOG = """\
examples:
  fastpose export runs/train/demo                             best.onnx beside the weights
  fastpose export best.safetensors --out pose.onnx --flip-test --decode image
  fastpose export best.safetensors --out pose.pt2             for torch.export.load
  fastpose export best.safetensors --out pose.pt2 --format compiled
  fastpose export best.safetensors --out pose.onnx --check-on photos/
  fastpose export pose_hrnet_w32_384x288.pth --config coco/hrnet_w32_384x288 --out pose.onnx

The file is compared with the network on random crops, rendered figures and pictures of yours (--check-on)
before it is kept. It takes crops (B, H, W, 3) uint8, B free, and `fastpose predict` takes it in the place of
weights. docs/export.md says what each form takes and gives.
"""


def add_parser(verbs: Any) -> None:
    parser = new_verb(verbs, "export", "write a network as ONNX or for torch.export, checked", EPILOG)
    parser.add_argument("weights", type=Path, help="a run folder, .safetensors, or a .pth with --config")
    parser.add_argument("--out", type=Path, metavar="FILE", help=".onnx or .pt2 (default: WEIGHTS.onnx)")
    parser.add_argument("--config", help="configuration of the training, for weights that do not say theirs")
    parser.add_argument(
        "--format", choices=("onnx", "program", "compiled"),
        help="compiled: a .pt2 of AOTInductor for this CPU (default: as FILE ends, onnx or program)",
    )  # fmt: skip
    parser.add_argument(
        "--input", choices=("crops", "images"), default="crops",
        help="uint8 crops, normalised inside (default), or float images, normalised before",
    )  # fmt: skip
    parser.add_argument("--input-size", type=_size, metavar="WxH", help="pixels (default: the network's own)")
    parser.add_argument("--flip-test", action="store_true", help="average in the mirrored picture, inside")
    parser.add_argument("--no-shift", action="store_true", help="of the flip test: do not move its maps")
    parser.add_argument(
        "--decode", choices=("none", "crop", "image"), default="none",
        help="keypoints in pixels of the crop, or of the image, from inside (default: none, heatmaps)",
    )  # fmt: skip
    parser.add_argument(
        "--refine", choices=("auto", "none", "quarter", "quarter_each", "dark", "dark_udp"), default="auto",
        help="how a peak becomes a point (default: as the weights say, else their codec)",
    )  # fmt: skip
    parser.add_argument(
        "--blur-kernel", type=blur_kernel, default="auto", metavar="N",
        help="odd, of dark and dark_udp (default: as the weights say, else 11)",
    )  # fmt: skip
    parser.add_argument(
        "--check-on", nargs="+", metavar="PICTURES",
        help="compare on these too: files, folders or globs, of which at most 8 are taken",
    )  # fmt: skip
    parser.set_defaults(run=run)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, such as 192x256, got {text!r}")
    return int(width), int(height)


def run(args: argparse.Namespace) -> None:
    from fastpose.infer.export.run import export_model
    from fastpose.models.checkpoint_formats import weights_file

    weights = weights_file(args.weights)
    model = _network(weights, args)
    out = args.out or weights.with_suffix(".onnx")
    print(f"{weights}: {model.meta.model} with {model.meta.counted}")
    exported = export_model(
        model,
        out,
        args.format,
        check_on=args.check_on,
        takes=args.input,
        flip_test=args.flip_test,
        shift=False if args.no_shift else "auto",
        decode=None if args.decode == "none" else args.decode,
        refine=args.refine,
        blur_kernel=args.blur_kernel,
    )
    spec = exported.spec
    width, height = spec.meta.input_size
    order = f", {spec.meta.channel_order}" if spec.takes == "crops" else ""
    print(f"takes {', '.join(spec.inputs)} ({width}x{height}{order}), gives {', '.join(spec.outputs)}")
    print(f"{exported.engine} against the network: {exported.agreement}")
    print(f"wrote {exported.path}, {exported.path.stat().st_size / 1e6:.1f} MB")


def _network(weights: Path, args: argparse.Namespace) -> Any:
    from fastpose.models import load_model
    from fastpose.models.weights import create_fitting
    from fastpose.train.config_io import load_config
    from fastpose.train.tasks.networks import network_options, say_kernel

    if args.config:
        config = load_config(args.config, ["data.root=."])
        model = say_kernel(create_fitting(config.model.name, weights, **network_options(config)), config)
    elif weights.suffix == ".safetensors":
        model = load_model(weights)
    else:
        raise unknown_network(weights)
    model.meta = model.meta.with_options({"input_size": args.input_size})
    return model.eval()
