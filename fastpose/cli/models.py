"""`fastpose models`."""

from __future__ import annotations

import argparse
from typing import Any

from fastpose.cli._common import new_verb

EPILOG = """\
examples:
  fastpose models                  every network: parameters, multiply-adds, configurations
  fastpose models hourglass8       one network
  fastpose models --markdown       docs/models.md, with published scores, sources and licences

Parameters and multiply-adds are counted from the networks themselves.
"""


def add_parser(verbs: Any) -> None:
    parser = new_verb(verbs, "models", "list the networks with their cost and configurations", EPILOG)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks (default: all)")
    parser.add_argument("--markdown", action="store_true", help="print the page docs/models.md")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from fastpose.models import list_models
    from fastpose.models.registry import task_of
    from fastpose.train.models_page import models_page, models_table

    for name in args.names:
        task_of(name)
    names = args.names or list_models()
    print(models_page(names) if args.markdown else models_table(names))
