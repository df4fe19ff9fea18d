"""`fastpose demo`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from fastpose.cli._common import free_folder, new_verb

EPILOG = """\
Trains hrnet_w18_small on rendered figures, evaluates it on figures it has never seen and draws what it finds:
on two CPU cores in under six minutes. It downloads nothing and needs no GPU.
"""


def add_parser(verbs: Any) -> None:
    parser = new_verb(verbs, "demo", "train, evaluate and draw on rendered figures, from nothing", EPILOG)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings, as for `fastpose train`")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from fastpose.cli.train import train
    from fastpose.train.config_io import load_config

    started = time.perf_counter()
    config = load_config("samples/figures", args.settings)
    folder = free_folder(Path(config.run.dir) / "train" / (config.run.name or "demo"))
    print(_opening(config))
    evaluation = train(config, folder)
    sheet = sorted((folder / "pictures").glob("*.png"))
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    print(f"""
held-out OKS-AP {evaluation.score:.3f} with boxes given, after {minutes} min {seconds} s in all

look at    {sheet[-1] if sheet else folder}     predictions on held-out figures
           {folder}/curves.png                   loss and AP, epoch by epoch
try next   fastpose predict {folder} PICTURE.png
           fastpose val {folder} val.flip_test=false
           fastpose figures data/figures --count 500       the pictures themselves, in the COCO layout
           fastpose train --list                           the published experiments, for your own data
""")


def _opening(config: Any) -> str:
    figures = config.data.figures
    return (
        f"fastpose demo: {config.model.name} at {config.data.input_size[0]}x{config.data.input_size[1]}, "
        f"{config.train.epochs} epochs over {figures.train_count} rendered pictures"
    )
