"""`fastpose predict`."""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpose.cli import predict_segmentation
from fastpose.cli._common import blur_kernel, new_verb, worker_count
from fastpose.cli._network import add_network_options, network_of, print_network, refuse_picture
from fastpose.cli.predict_video import RATE, add_options, is_sequence, other_files, run_sequence

if TYPE_CHECKING:
    from fastpose.infer.predictor import Predictor

logger = logging.getLogger(__name__)

EPILOG = """\
examples:
  fastpose predict runs/train/demo crops/                       every picture holds one person
  fastpose predict best.safetensors 'photos/*.jpg' --boxes detections.json
  fastpose predict best.safetensors photos/ --detector ultralytics:yolo11n.pt
  fastpose predict pose_hrnet_w32_384x288.pth photo.jpg --config coco/hrnet_w32_384x288
  fastpose predict best.safetensors film.mp4 --detector ultralytics:yolo11n.pt --track --smooth
  fastpose predict best.onnx photo.jpg --engine openvino --amp auto
  fastpose predict runs/train/figures_segmentation photos/      the class of every pixel

Boxes come from a json in COCO detection format: [{"image_id" or "file_name", "bbox": [x, y, w, h], "score"}],
or from a detector: people, OpenCV's built-in one, which needs nothing and misses most people, or that of a
library you have installed: torchvision:NAME, ultralytics:FILE, rtmlib:FILE, transformers:NAME. Without either
the whole picture is taken as the box of one person. OUT gets predictions.json (COCO result format plus
file_name, bbox and drawn, the PNG's name) and one drawn PNG a picture, or with --no-draw the json alone.
Pictures are turned as their EXIF data says. A video, or the number of a camera, gets an annotated video and a
line of JSON a frame instead, and so do pictures with any of the video options. A segmentation network gives
OUT/labels/NAME.png, whose palette indices are the classes, and an overlay OUT/NAME.png.
"""

NO_BOXES = (
    "no boxes and no detector: each picture is taken as one person, cut out to its edges. For pictures with "
    "more around the person give --boxes FILE, or --detector ultralytics:yolo11n.pt and the like, or "
    "--detector people, which is built in and misses most people; --detector whole silences this"
)


def add_parser(verbs: Any) -> None:
    parser = new_verb(
        verbs, "predict", "find people's keypoints in pictures and videos, or the class of each pixel", EPILOG
    )
    parser.add_argument(
        "weights", type=Path,
        help="a run folder, .safetensors, an .onnx or .pt2 of `fastpose export`, or a .pth with --config",
    )  # fmt: skip
    parser.add_argument("images", nargs="+", help="pictures, folders, globs, or one video or camera")
    _people_options(parser.add_argument_group("where people are"))
    network, speed = add_network_options(parser)
    _peak_options(network)
    _speed_options(speed)
    _output_options(parser.add_argument_group("output"))
    add_options(parser)
    predict_segmentation.add_options(parser)
    parser.set_defaults(run=run)


def _people_options(group: Any) -> None:
    group.add_argument("--boxes", type=Path, metavar="FILE", help="json of person boxes")
    group.add_argument(
        "--box-score", type=_score, default=0.0, metavar="SCORE",
        help="least score of a box in the json of --boxes (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--detector", metavar="NAME", help="whole (default), people, or LIBRARY:MODEL; instead of --boxes"
    )
    group.add_argument("--no-exif", action="store_true", help="leave pictures as stored, as COCO's boxes do")


def _peak_options(group: Any) -> None:
    group.add_argument(
        "--refine", choices=("auto", "none", "quarter", "quarter_each", "dark", "dark_udp"), default="auto",
        help="how a peak becomes a point (default: as the weights say, else their codec)",
    )  # fmt: skip
    group.add_argument(
        "--blur-kernel", type=blur_kernel, default="auto", metavar="N",
        help="odd, of dark and dark_udp alone: 11 for weights of sigma 2, 17 of 3 (default: as the weights "
        "say, else 11)",
    )  # fmt: skip


def _speed_options(group: Any) -> None:
    group.add_argument(
        "--batch-size", type=int, default=32, metavar="N",
        help="most people in one forward pass; a smaller number needs less memory (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--workers", type=worker_count, default="auto", metavar="N",
        help="threads that read pictures ahead, 0 for none (default: by device and cores)",
    )  # fmt: skip
    group.add_argument(
        "--warp", choices=("auto", "cpu", "gpu"), default="auto",
        help="who cuts people out of the picture, with the same pixels (default: a GPU that there is)",
    )  # fmt: skip
    group.add_argument(
        "--compile", choices=("default", "max-autotune"),
        help="run it through torch.compile: worth its minutes for many pictures only",
    )  # fmt: skip


def _output_options(group: Any) -> None:
    group.add_argument("--out", type=Path, default=Path("runs/predict"), help="folder (default: %(default)s)")
    group.add_argument(
        "--no-draw",
        action="store_true",
        help="no drawn pictures: the json only, of a segmentation network the labels",
    )
    group.add_argument(
        "--threshold", type=_share, default=0.2, metavar="SCORE",
        help="least score drawn, from 0 to 1 (default: %(default)s)",
    )  # fmt: skip


def _score(text: str) -> float:
    score = float(text)
    if not math.isfinite(score):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
    return score


def _share(text: str) -> float:
    score = float(text)
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"expected a score from 0 to 1, got {text!r}")
    return score


def run(args: argparse.Namespace) -> None:
    from fastpose.infer.sources import find_images

    refuse_picture(args.weights)
    if predict_segmentation.is_segmentation(args):
        predict_segmentation.run_segmentation(args)
        return
    _check_boxes(args)
    if is_sequence(args):
        run_sequence(args, _predictor)
        return
    _run_pictures(args, find_images(args.images))


def _check_boxes(args: argparse.Namespace) -> None:
    from fastpose.errors import ConfigError

    if args.boxes and args.detector:
        raise ConfigError("--boxes and --detector: give one of the two")
    if args.box_score != args.usual("box_score") and not args.boxes:
        raise ConfigError(
            "--box-score: chooses among the boxes of --boxes FILE, and no file is given; a detector has a "
            "threshold of its own"
        )


def _run_pictures(args: argparse.Namespace, files: list[Path]) -> None:
    from fastpose.files import make_folder
    from fastpose.infer.files import predict_files
    from fastpose.infer.outputs import check_output
    from fastpose.infer.results import read_boxes, write_results
    from fastpose.progress import progress_bar
    from fastpose.wording import counted

    check_output(args.out / "predictions.json", other_files(args))
    boxes = read_boxes(args.boxes, files, min_score=args.box_score) if args.boxes else None
    predictor = _predictor(args)
    out = make_folder(args.out)
    with progress_bar("predicting", len(files)) as advance:
        rows, skipped = predict_files(
            predictor, files, boxes, out, threshold=args.threshold, draw=not args.no_draw, on_file=advance
        )
    for line in skipped:
        print(f"skipped: {line}")
    _check_any(rows, skipped, files, args.detector)
    write_results(out / "predictions.json", rows)
    people, pictures = counted(len(rows), "person"), counted(len(files), "picture")
    print(f"{people} in {pictures}, {len(skipped)} skipped")
    drawn = "" if args.no_draw else " and a PNG for each picture that could be read"
    print(f"results: {out}/predictions.json{drawn}")


def _predictor(args: argparse.Namespace) -> Predictor:
    from fastpose.infer.predictor import Predictor

    predictor = Predictor(
        network_of(args.weights, args.config),
        device=args.device,
        detector=args.detector or "whole",
        flip_test=not args.no_flip,
        refine=args.refine,
        blur_kernel=args.blur_kernel,
        amp=args.amp,
        engine=args.engine,
        batch_size=args.batch_size,
        track=args.track,
        smooth=args.smooth,
        rate=RATE if args.rate is None else args.rate,
        upright=not args.no_exif,
        workers=args.workers,
        warp=args.warp,
        compile=args.compile or False,
        fold=True,
    )
    if not args.boxes and not args.detector:  # of no use beside why a network cannot be opened
        logger.warning(NO_BOXES)
    print_network(predictor)
    return predictor


def _check_any(rows: list, skipped: list, files: list, detector: str | None) -> None:
    """Nobody found is a result only where a detector looked at a picture that could be read."""
    from fastpose.errors import DataError
    from fastpose.wording import counted

    looked = detector not in (None, "whole") and len(skipped) < len(files)
    if not rows and not looked:
        raise DataError(
            f"nobody to predict in {counted(len(files), 'picture')}: all boxes and pictures were skipped"
        )
