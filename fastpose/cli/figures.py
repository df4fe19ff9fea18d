"""`fastpose figures`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastpose.cli._common import new_verb

EPILOG = """\
examples:
  fastpose figures data/figures --count 2000
  fastpose figures data/figures --count 200 --split val2017 --seed 7 --masks
  fastpose train samples/figures data.format=coco data.root=data/figures
  fastpose figures data/parts --parts --split train

Writes the official COCO layout: OUT/annotations/person_keypoints_SPLIT.json and OUT/images/SPLIT/*.jpg.
The same seed and count give the same pictures.
"""


def add_parser(verbs: Any) -> None:
    parser = new_verb(verbs, "figures", "write rendered figures with exact annotations", EPILOG)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--count", type=int, default=100, help="pictures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--split", default="train2017", help="name of the split (default: %(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("W", "H"), help="in pixels")
    parser.add_argument(
        "--joints", choices=("coco", "mpii"), default="coco", help="COCO-17 or MPII-16 joints"
    )
    parser.add_argument("--masks", action="store_true", help="also write part masks as PNG")
    parser.add_argument(
        "--parts", action="store_true", help="write body parts in VOC's layout instead, for segmentation"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from fastpose.data.figures import write_figure_parts, write_figures
    from fastpose.keypoints import COCO_17, MPII_16

    if args.parts:
        size = tuple(args.size)
        listed = write_figure_parts(args.out, args.count, seed=args.seed, image_size=size, split=args.split)
        print(f"{args.count} pictures and their labels in {args.out}, listed in {listed}")
        return
    write_figures(
        args.out,
        args.count,
        seed=args.seed,
        split=args.split,
        image_size=tuple(args.size),
        keypoint_set=COCO_17 if args.joints == "coco" else MPII_16,
        masks=args.masks,
    )
    print(f"{args.count} pictures in {args.out}/images/{args.split}")
