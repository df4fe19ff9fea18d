"""`fastpose demo`."""

from __future__ import annotations

import argparse
import shutil
import sys
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
    from fastpose.infer.predictor import Predictor
    from fastpose.train.config_io import load_config
    from fastpose.train.pictures import save_pictures
    from fastpose.train.tasks.pose_data import val_table

    started = time.perf_counter()
    config = load_config("samples/figures", args.settings)
    folder = free_folder(Path(config.run.dir) / "train" / (config.run.name or "demo"))
    print(_opening(config))
    evaluation = train(config, folder)
    predictor = Predictor(folder / "best.safetensors", device=config.run.device)
    save_pictures(folder / "people.png", val_table(config), predictor)
    sheets = sorted((folder / "pictures").glob("*.png"))
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    command = "fastpose" if shutil.which("fastpose") else Path(sys.argv[0])
    print(f"""
held-out OKS-AP {evaluation.score:.3f}, boxes given, {minutes} min {seconds} s in all
These are the easy figures: one or two in a picture, most facing you, nobody cut off or behind things.

look at    {folder}/people.png      everybody in pictures that the network has never seen
           {sheets[-1] if sheets else folder}      one person at a time
           {folder}/curves.png      loss and AP, epoch by epoch
try next   {command} val {folder} 'data.figures.facing=[1,1,1]' data.figures.occluders=true     harder figures
           {command} figures data/figures --count 500     the pictures themselves, in the COCO layout
           {command} train --list     the published experiments, for your own data
""")


def _opening(config: Any) -> str:
    figures = config.data.figures
    return (
        f"fastpose demo: {config.model.name} at {config.data.input_size[0]}x{config.data.input_size[1]}, "
        f"{config.train.epochs} epochs over {figures.train_count} rendered pictures"
    )
