"""`fastpose predict`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpose.cli._common import blur_kernel, new_verb
from fastpose.cli.predict_video import RATE, add_options, is_sequence, run_sequence

if TYPE_CHECKING:
    from fastpose.infer.predictor import Predictor

EPILOG = """\
examples:
  fastpose predict runs/train/demo crops/                       every picture holds one person
  fastpose predict best.safetensors 'photos/*.jpg' --boxes detections.json
  fastpose predict best.safetensors photos/ --detector ultralytics:yolo11n.pt
  fastpose predict pose_hrnet_w32_384x288.pth photo.jpg --config coco/hrnet_w32_384x288
  fastpose predict best.safetensors film.mp4 --detector ultralytics:yolo11n.pt --track --smooth
  fastpose predict best.onnx photo.jpg --engine openvino --amp auto

Boxes come from a json in COCO detection format: [{"image_id" or "file_name", "bbox": [x, y, w, h], "score"}],
or from a detector: people, OpenCV's built-in one, which needs nothing and misses most people, or that of a
library you have installed: torchvision:NAME, ultralytics:FILE, rtmlib:FILE, transformers:NAME. Without either
the whole picture is taken as the box of one person. OUT gets predictions.json (COCO result format plus
file_name and bbox) and one drawn PNG a picture. Pictures are turned as their EXIF data says. A video, or the
number of a camera, gets an annotated video and a line of JSON a frame instead, and so do pictures with any of
the video options.
"""


def add_parser(verbs: Any) -> None:
    parser = new_verb(verbs, "predict", "find people's keypoints in pictures and videos", EPILOG)
    parser.add_argument(
        "weights", type=Path,
        help="a run folder, .safetensors, an .onnx or .pt2 of `fastpose export`, or a .pth with --config",
    )  # fmt: skip
    parser.add_argument("images", nargs="+", help="pictures, folders, globs, or one video or camera")
    parser.add_argument("--boxes", type=Path, help="json of person boxes")
    parser.add_argument(
        "--box-score", type=float, default=0.0, help="least score of a box in the json (default: %(default)s)"
    )
    parser.add_argument(
        "--detector", metavar="NAME", help="whole (default), people, or LIBRARY:MODEL; instead of --boxes"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/predict"), help="default: %(default)s")
    parser.add_argument("--config", help="configuration of the training, for weights that do not say theirs")
    parser.add_argument(
        "--threshold", type=float, default=0.2, help="least score drawn (default: %(default)s)"
    )
    parser.add_argument("--no-flip", action="store_true", help="do not average in the mirrored picture")
    parser.add_argument("--no-exif", action="store_true", help="leave pictures as stored, as COCO's boxes do")
    parser.add_argument(
        "--refine",
        choices=("auto", "none", "quarter", "quarter_each", "dark", "dark_udp"),
        default="auto",
        help="how a peak becomes a point (default: what the codec of the weights is published with)",
    )
    parser.add_argument(
        "--blur-kernel",
        type=blur_kernel,
        default=11,
        help="odd, of dark: 11 for weights trained with sigma 2, 17 for sigma 3 (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--amp", choices=("none", "auto", "bf16", "fp16"), default="none",
        help="auto: bf16 where the device multiplies it, faster and less exact (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--engine", choices=("onnx", "openvino", "torch"),
        help="what runs an exported file (default: onnx for .onnx, torch for .pt2)",
    )  # fmt: skip
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from fastpose.errors import ConfigError
    from fastpose.files import make_folder
    from fastpose.infer.files import predict_files
    from fastpose.infer.results import read_boxes, write_results
    from fastpose.infer.sources import find_images
    from fastpose.progress import progress_bar

    if args.boxes and args.detector:
        raise ConfigError("--boxes and --detector: give one of the two")
    if is_sequence(args):
        run_sequence(args, _predictor)
        return
    files = find_images(args.images)
    boxes = read_boxes(args.boxes, files, min_score=args.box_score) if args.boxes else None
    predictor = _predictor(args)
    out = make_folder(args.out)
    with progress_bar("predicting", len(files)) as advance:
        rows, skipped = predict_files(predictor, files, boxes, out, threshold=args.threshold, on_file=advance)
    for line in skipped:
        print(f"skipped: {line}")
    _check_any(rows, skipped, files, args.detector)
    write_results(out / "predictions.json", rows)
    print(f"{len(rows)} persons in {len(files)} pictures, {len(skipped)} skipped")
    print(f"results: {out}/predictions.json and a PNG for each picture that could be read")


def _predictor(args: argparse.Namespace) -> Predictor:
    from fastpose.infer.engines import Engine
    from fastpose.infer.predictor import Predictor

    predictor = Predictor(
        _network(args),
        device=args.device,
        detector=args.detector,
        flip_test=not args.no_flip,
        refine=args.refine,
        blur_kernel=args.blur_kernel,
        track=args.track,
        smooth=args.smooth,
        rate=RATE if args.rate is None else args.rate,
        upright=not args.no_exif,
        amp=args.amp,
        engine=args.engine,
    )
    width, height = predictor.meta.input_size
    place = predictor.model.graph.engine if isinstance(predictor.model, Engine) else predictor.device
    print(f"{predictor.meta.model}, crops {width}x{height} {predictor.meta.channel_order}, {place}")
    return predictor


def _check_any(rows: list, skipped: list, files: list, detector: str | None) -> None:
    """Nobody found is a result only where a detector looked at a picture that could be read."""
    from fastpose.errors import DataError

    looked = detector not in (None, "whole") and len(skipped) < len(files)
    if not rows and not looked:
        raise DataError(f"nobody to predict in {len(files)} pictures: all boxes and pictures were skipped")


def _network(args: argparse.Namespace) -> Any:
    from fastpose.device import pick_device
    from fastpose.errors import CheckpointError
    from fastpose.infer.folded import folded
    from fastpose.infer.network_in import is_exported, weights_file
    from fastpose.keypoints import COCO_17, MPII_16
    from fastpose.train.config_io import load_config
    from fastpose.train.tasks.pose_data import build_model

    weights = weights_file(args.weights)
    if args.config:
        config = load_config(args.config, ["data.root=."])
        model = build_model(config, MPII_16 if config.data.format == "mpii" else COCO_17, weights)
        return folded(model) if pick_device(args.device).type == "cpu" else model
    if weights.suffix != ".safetensors" and not is_exported(weights):
        raise CheckpointError(
            f"{weights}: does not say which network it is for, nor its input size; name the configuration of "
            "its training, as in --config coco/hrnet_w32_256x192"
        )
    return weights
