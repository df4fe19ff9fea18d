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
  fastpose predict pose_hrnet_w32_256x192.pth photo.jpg --model hrnet_w32

Boxes come from a json in COCO detection format: [{"image_id" or "file_name", "bbox": [x, y, w, h], "score"}];
without --boxes the whole picture is taken as the box of one person. OUT gets predictions.json (COCO result
format plus file_name and bbox) and one drawn PNG a picture.
"""


def add_parser(verbs: Any) -> None:
    parser = new_verb(verbs, "predict", "find people's keypoints in pictures", EPILOG)
    parser.add_argument("weights", type=Path, help="a run folder, .safetensors, or a .pth with --model")
    parser.add_argument("images", nargs="+", help="pictures, folders or globs")
    parser.add_argument("--boxes", type=Path, help="json of person boxes (default: the whole picture)")
    parser.add_argument(
        "--box-score", type=float, default=0.0, help="least score of a box (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/predict"), help="default: %(default)s")
    parser.add_argument("--model", help="name of the network, for weights that do not say it")
    parser.add_argument(
        "--joints", type=int, default=17, help="joints of that network (default: %(default)s)"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.2, help="least score drawn (default: %(default)s)"
    )
    parser.add_argument("--no-flip", action="store_true", help="do not average in the mirrored picture")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from fastpose.files import make_folder
    from fastpose.infer.files import predict_files
    from fastpose.infer.predictor import Predictor
    from fastpose.infer.results import read_boxes, write_results
    from fastpose.infer.sources import find_images
    from fastpose.train.log import progress_bar

    files = find_images(args.images)
    boxes = read_boxes(args.boxes, files, min_score=args.box_score) if args.boxes else None
    predictor = Predictor(_network(args), device=args.device, flip_test=not args.no_flip)
    out = make_folder(args.out)
    with progress_bar("predicting", len(files)) as advance:
        rows, skipped = predict_files(predictor, files, boxes, out, threshold=args.threshold, on_file=advance)
    write_results(out / "predictions.json", rows)
    for line in skipped:
        print(f"skipped: {line}")
    print(f"{len(rows)} persons in {len(files)} pictures, {len(skipped)} skipped")
    print(f"results: {out}/predictions.json and a PNG for each picture")


def _network(args: argparse.Namespace) -> Any:
    from fastpose.errors import CheckpointError
    from fastpose.models import create_trained

    weights = args.weights / "best.safetensors" if args.weights.is_dir() else args.weights
    if args.model:
        return create_trained(args.model, args.joints, weights)
    if weights.suffix != ".safetensors":
        raise CheckpointError(
            f"{weights}: does not say which network it is for; add --model, e.g. --model hrnet_w32"
        )
    return weights
