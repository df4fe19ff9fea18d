"""The `fastpose` command: one file a verb, heavy imports only inside the verb that runs."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from fastpose import __version__
from fastpose.cli import app, check, demo, env, export, figures, models, parity, predict, prepare, train, val
from fastpose.errors import FastposeError

VERBS = (demo, train, val, predict, app, export, models, parity, check, prepare, figures, env)

EPILOG = """\
a first tour:
  fastpose demo                                     train on rendered figures, evaluate, draw (minutes)
  fastpose train coco/hrnet_w32_256x192 data.root=data/coco
  fastpose val runs/train/hrnet_w32_256x192
  fastpose predict runs/train/demo photo.jpg --boxes boxes.json --out out
  fastpose app runs/train/demo                      a page in the browser to try it on
  fastpose VERB --help                              what each verb takes, with examples

Errors end with exit code 2 and one line that names the file or setting and the remedy.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="fastpose",
        description="Train, evaluate and run human-pose networks.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fastpose {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for module in VERBS:
        module.add_parser(verbs)
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """As parse_args, but `key=value` settings may also stand behind an option, where argparse loses them."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    unknown = [word for word in rest if word.startswith("-") or "=" not in word or "settings" not in args]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        args.settings = [*args.settings, *rest]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code: 0, 2 for an error the user can mend, 130 when interrupted."""
    logging.basicConfig(level=logging.WARNING, format="fastpose: %(message)s")
    logging.getLogger("fastpose").setLevel(logging.INFO)
    args = _parse(argv)
    try:
        code = int(args.run(args) or 0)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `fastpose ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (FastposeError, OSError) as error:
        print(f"fastpose: error: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        # torch raises this from a signal handler, wherever the main thread is.
        print(f"fastpose: error: {error}; use fewer data.workers if memory ran out", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fastpose: interrupted", file=sys.stderr)
        return 130
