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
  fastpose predict pose_hrnet_w32_384x288.pth photo.jpg --config coco/hrnet_w32_384x288

Boxes come from a json in COCO detection format: [{"image_id" or "file_name", "bbox": [x, y, w, h], "score"}];
without --boxes the whole picture is taken as the box of one person. OUT gets predictions.json (COCO result
format plus file_name and bbox) and one drawn PNG a picture.
"""


def add_parser(verbs: Any) -> None:
    parser = new_verb(verbs, "predict", "find people's keypoints in pictures", EPILOG)
    parser.add_argument("weights", type=Path, help="a run folder, .safetensors, or a .pth with --config")
    parser.add_argument("images", nargs="+", help="pictures, folders or globs")
    parser.add_argument("--boxes", type=Path, help="json of person boxes (default: the whole picture)")
    parser.add_argument(
        "--box-score", type=float, default=0.0, help="least score of a box (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/predict"), help="default: %(default)s")
    parser.add_argument("--config", help="configuration of the training, for weights that do not say theirs")
    parser.add_argument(
        "--threshold", type=float, default=0.2, help="least score drawn (default: %(default)s)"
    )
    parser.add_argument("--no-flip", action="store_true", help="do not average in the mirrored picture")
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
    from fastpose.errors import DataError
    from fastpose.files import make_folder
    from fastpose.infer.files import predict_files
    from fastpose.infer.predictor import Predictor
    from fastpose.infer.results import read_boxes, write_results
    from fastpose.infer.sources import find_images
    from fastpose.progress import progress_bar

    files = find_images(args.images)
    boxes = read_boxes(args.boxes, files, min_score=args.box_score) if args.boxes else None
    predictor = Predictor(
        _network(args),
        device=args.device,
        flip_test=not args.no_flip,
        refine=args.refine,
        blur_kernel=args.blur_kernel,
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
    if not rows:
        raise DataError(f"nobody to predict in {len(files)} pictures: all boxes and pictures were skipped")
    write_results(out / "predictions.json", rows)
    print(f"{len(rows)} persons in {len(files)} pictures, {len(skipped)} skipped")
    print(f"results: {out}/predictions.json and a PNG for each picture that could be read")


def _network(args: argparse.Namespace) -> Any:
    from fastpose.errors import CheckpointError
    from fastpose.keypoints import COCO_17, MPII_16
    from fastpose.train.config_io import load_config
    from fastpose.train.tasks.pose_data import build_model

    weights = args.weights / "best.safetensors" if args.weights.is_dir() else args.weights
    if not weights.is_file():
        raise CheckpointError(f"{weights}: no such file")
    if args.config:
        config = load_config(args.config, ["data.root=."])
        return build_model(config, MPII_16 if config.data.format == "mpii" else COCO_17, weights)
    if weights.suffix != ".safetensors":
        raise CheckpointError(
            f"{weights}: does not say which network it is for, nor its input size; name the configuration of "
            "its training, as in --config coco/hrnet_w32_256x192"
        )
    return weights
