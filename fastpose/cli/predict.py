"""`fastpose predict`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastpose.cli._common import new_verb

EPILOG = """\
examples:
  fastpose predict runs/train/demo crops/                       every picture holds one person
  fastpose predict best.safetensors 'photos/*.jpg' --boxes detections.json
  fastpose predict best.safetensors photos/ --detector ultralytics:yolo11n.pt
  fastpose predict pose_hrnet_w32_384x288.pth photo.jpg --config coco/hrnet_w32_384x288

Boxes come from a json in COCO detection format: [{"image_id" or "file_name", "bbox": [x, y, w, h], "score"}],
or from a detector: people, OpenCV's built-in one, which needs nothing and misses most people, or that of a
library you have installed: torchvision:NAME, ultralytics:FILE, rtmlib:FILE, transformers:NAME. Without either
the whole picture is taken as the box of one person. OUT gets predictions.json (COCO result format plus
file_name and bbox) and one drawn PNG a picture. Pictures are turned as their EXIF data says.
"""


def add_parser(verbs: Any) -> None:
    parser = new_verb(verbs, "predict", "find people's keypoints in pictures", EPILOG)
    parser.add_argument("weights", type=Path, help="a run folder, .safetensors, or a .pth with --config")
    parser.add_argument("images", nargs="+", help="pictures, folders or globs")
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
        "--refine", choices=("none", "quarter", "dark"), default="quarter", help="default: %(default)s"
    )
    parser.add_argument(
        "--blur-kernel",
        type=_blur_kernel,
        default=11,
        help="odd, of dark: 11 for weights trained with sigma 2, 17 for sigma 3 (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.set_defaults(run=run)


def _blur_kernel(text: str) -> int:
    from fastpose.reference.dark import check_blur_kernel

    kernel = int(text)
    try:
        check_blur_kernel(kernel)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return kernel


def run(args: argparse.Namespace) -> None:
    from fastpose.errors import ConfigError
    from fastpose.files import make_folder
    from fastpose.infer.files import predict_files
    from fastpose.infer.predictor import Predictor
    from fastpose.infer.results import read_boxes, write_results
    from fastpose.infer.sources import find_images
    from fastpose.progress import progress_bar

    if args.boxes and args.detector:
        raise ConfigError("--boxes and --detector: give one of the two")
    files = find_images(args.images)
    boxes = read_boxes(args.boxes, files, min_score=args.box_score) if args.boxes else None
    predictor = Predictor(
        _network(args),
        device=args.device,
        detector=args.detector,
        flip_test=not args.no_flip,
        refine=args.refine,
        blur_kernel=args.blur_kernel,
        upright=not args.no_exif,
    )
    out = make_folder(args.out)
    width, height = predictor.meta.input_size
    print(
        f"{predictor.meta.model}, crops {width}x{height} {predictor.meta.channel_order}, {predictor.device}"
    )
    with progress_bar("predicting", len(files)) as advance:
        rows, skipped = predict_files(predictor, files, boxes, out, threshold=args.threshold, on_file=advance)
    for line in skipped:
        print(f"skipped: {line}")
    _check_any(rows, skipped, files, args.detector)
    write_results(out / "predictions.json", rows)
    print(f"{len(rows)} persons in {len(files)} pictures, {len(skipped)} skipped")
    print(f"results: {out}/predictions.json and a PNG for each picture that could be read")


def _check_any(rows: list, skipped: list, files: list, detector: str | None) -> None:
    """Nobody found is a result only where a detector looked at a picture that could be read."""
    from fastpose.errors import DataError

    looked = detector not in (None, "whole") and len(skipped) < len(files)
    if not rows and not looked:
        raise DataError(f"nobody to predict in {len(files)} pictures: all boxes and pictures were skipped")


def _network(args: argparse.Namespace) -> Any:
    from fastpose.errors import CheckpointError
    from fastpose.infer.network_in import weights_file
    from fastpose.keypoints import COCO_17, MPII_16
    from fastpose.train.config_io import load_config
    from fastpose.train.tasks.pose_data import build_model

    weights = weights_file(args.weights)
    if args.config:
        config = load_config(args.config, ["data.root=."])
        return build_model(config, MPII_16 if config.data.format == "mpii" else COCO_17, weights)
    if weights.suffix != ".safetensors":
        raise CheckpointError(
            f"{weights}: does not say which network it is for, nor its input size; name the configuration of "
            "its training, as in --config coco/hrnet_w32_256x192"
        )
    return weights
