"""`fastpose check`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastpose.cli._common import new_verb

EPILOG = """\
examples:
  fastpose check data/coco                          every split of a COCO, MPII or VOC folder
  fastpose check annotations.json --images photos   one annotation file with its pictures
  fastpose check data/coco --decode                 also decode every picture (slow, finds truncated files)

Every problem is listed at once, the counts come last; the exit code is 2 when there are problems.
"""


def add_parser(verbs: Any) -> None:
    parser = new_verb(verbs, "check", "list every problem of a data set at once", EPILOG)
    parser.add_argument("data", type=Path, help="a folder in the COCO, MPII or VOC layout, or a COCO json")
    parser.add_argument("--images", type=Path, help="folder or zip of the pictures of an annotation json")
    parser.add_argument("--decode", action="store_true", help="decode every picture as well")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from fastpose.data.check import check_coco, check_data
    from fastpose.errors import ConfigError

    if args.data.is_file():
        if args.images is None:
            raise ConfigError(f"{args.data} is one annotation file: say where its pictures are with --images")
        report = check_coco(args.data, args.images, decode=args.decode)
    else:
        report = check_data(args.data, decode=args.decode)
    print(report)
    return 2 if report.problems else 0
