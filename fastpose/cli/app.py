"""`fastpose app`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastpose.cli._common import new_verb
from fastpose.cli._network import add_network_options, network_of, print_network

EPILOG = """\
examples:
  fastpose app                                          the newest demo run under runs/
  fastpose app runs/train/hrnet_w32_256x192
  fastpose app pose_hrnet_w32_384x288.pth --config coco/hrnet_w32_384x288
  fastpose app pose_hrnet_w32_256x192.pth --model hrnet_w32
  fastpose app pose.onnx
  fastpose app best.safetensors --detector ultralytics:yolo11n.pt --port 8000

Opens a page on this machine: choose a picture, draw or detect boxes, see skeletons, heatmaps and timings, and
download the joints. Needs the extra `app`: pip install 'fastpose[app]'. Only this machine can reach the page
unless --host says otherwise; docs/app.md says what it accepts.
"""


def add_parser(verbs: Any) -> None:
    parser = new_verb(verbs, "app", "try a network on pictures in the browser", EPILOG)
    parser.add_argument(
        "weights", type=Path, nargs="?",
        help="a run folder, .safetensors, an .onnx or .pt2 of `fastpose export`, or a .pth with --config or "
        "--model",
    )  # fmt: skip
    network, _ = add_network_options(parser)
    network.add_argument(
        "--model",
        help="instead of --config: name of the network, at its usual size; see `fastpose models`",
    )
    page = parser.add_argument_group("page")
    page.add_argument(
        "--detector", default="people", metavar="NAME",
        help="of the button: people (default) or LIBRARY:MODEL, as for predict",
    )  # fmt: skip
    page.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; any but a local one lets others in"
    )
    page.add_argument("--port", type=int, help="default: 7860, or the next that is free")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from fastpose.app.serve import is_local, serve
    from fastpose.infer.predictor import Predictor

    weights = args.weights or newest_demo(Path("runs"))
    predictor = Predictor(
        network_of(weights, args.config, args.model),
        device=args.device,
        detector="whole",
        flip_test=not args.no_flip,
        amp=args.amp,
        engine=args.engine,
        fold=True,
    )
    if not is_local(args.host):
        print(
            f"warning: {args.host} is not a local address: whoever reaches this machine can use the page, "
            "with no password and no encryption"
        )

    def announce(address: str) -> None:
        print(f"{weights}: ", end="")
        print_network(predictor)
        print(f"open {address} in a browser; Ctrl-C ends it", flush=True)

    serve(predictor, announce, detector=args.detector, host=args.host, port=args.port)


def newest_demo(runs: Path) -> Path:
    """The best weights of the `fastpose demo` that ended last; CheckpointError where there is none."""
    from fastpose.errors import CheckpointError

    found = [file for file in runs.glob("train/demo*/best.safetensors") if file.is_file()]
    if not found:
        raise CheckpointError(
            f"no weights named, and no demo run in {runs}/train: run `make demo` (or `fastpose demo`) first, "
            "or name weights, as in fastpose app best.safetensors"
        )
    return max(found, key=lambda file: file.stat().st_mtime)
