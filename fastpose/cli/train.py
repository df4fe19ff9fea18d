"""`fastpose train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastpose.cli._common import config_or_run, free_folder, latest_folder, new_verb, print_left_out

EPILOG = """\
examples:
  fastpose train coco/hrnet_w32_256x192 data.root=data/coco model.weights=hrnet_w32_imagenet.pth
  fastpose train samples/figures train.epochs=20 run.name=first
  fastpose train my.yaml train.batch_size=32 train.lr=2.5e-4 val.flip_test=false
  fastpose train runs/train/first --resume             go on after a kill, bit for bit on the CPU

A run lives in DIR/train/NAME (run.dir, run.name): config.yaml with every setting, results.csv, curves.png,
TensorBoard events, pictures/, best.safetensors, last.safetensors and checkpoints/ to resume from.
--list shows the configurations that come with fastpose; --settings prints every setting with its
default and meaning.
"""

NO_NAME = ""


def add_parser(verbs: Any) -> None:
    parser = new_verb(verbs, "train", "train a network from a configuration", EPILOG)
    parser.add_argument("config", nargs="?", help="a shipped configuration, a yaml file, or a run folder")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings that override the file's")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint, if any")
    parser.add_argument(
        "--config", nargs="?", const=NO_NAME, dest="named", metavar="CONFIG",
        help="the configuration, where options are preferred; without a name as --list",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print the shipped configurations and stop")
    parser.add_argument(
        "--settings", action="store_true", dest="describe", help="print every setting and stop"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from fastpose.errors import ConfigError
    from fastpose.train.config_io import list_configs
    from fastpose.train.settings import describe_settings

    if args.describe:
        print(describe_settings())
        return
    if args.list or args.named == NO_NAME:
        print("\n".join(list_configs()))
        return
    name, settings = args.config, args.settings
    if args.named is not None:  # what stands first without an option is then a setting
        name, settings = args.named, [args.config, *settings] if args.config else settings
    if name is None:
        raise ConfigError("which configuration? `fastpose train --list` shows those that come with fastpose")
    config, folder = config_or_run(name, settings)
    if folder is not None and not args.resume:
        raise ConfigError(f"{folder} is a run folder: add --resume to go on with it, or name a configuration")
    from fastpose.train.parallel.distributed import start_world

    with start_world(config.run.device, patience=config.run.patience) as world:
        if folder is None:
            named = Path(config.run.dir) / "train" / (config.run.name or config.name)
            folder = named if args.resume else Path(world.from_main(lambda: str(_own_folder(named, world))))
        train(config, folder, world)


def _own_folder(named: Path, world: Any) -> Path:
    """A new folder, or, where torchrun starts the same command again, the one that its first start began."""
    from fastpose.train.saving.job import folder_of_job

    begun = folder_of_job(named, world.job)
    return begun or (latest_folder(named) if world.restarts else free_folder(named))


def train(config: Any, folder: Path, world: Any = None) -> Any:
    """Trains (or goes on) in `folder`, with the messages a person wants around it; returns the evaluation."""
    from fastpose.train.loop import Trainer

    trainer = Trainer(config, folder, world)
    if not trainer.world.is_main:
        return trainer.fit()
    return _train_aloud(trainer, config, folder)


def _train_aloud(trainer: Any, config: Any, folder: Path) -> Any:
    from fastpose.errors import OutputError
    from fastpose.infer.table import evaluation_text
    from fastpose.train.curves import plot_curves

    task, table = trainer.task, trainer.train_table
    print(
        f"training {config.model.name} on {task.describe(table)}, "
        f"{trainer.steps_per_epoch} steps an epoch, on {trainer.world.size} x {trainer.device.type}; "
        f"run folder {folder}"
    )
    print_left_out(table)
    if trainer.resumed:
        done = trainer.progress
        print(f"resumed after {done.epoch} epochs and {done.batch} steps")
    evaluation = trainer.fit()
    if evaluation is not None:
        print(evaluation_text(evaluation, f"{folder.name}: {task.describe(trainer.val_table)}"))
    try:
        plot_curves(folder / "results.csv", folder / "curves.png")
    except OutputError as error:
        if config.train.on_save_error == "stop":
            raise
        print(f"warning: {error}")
    print(f"done: {folder}/best.safetensors, last.safetensors, results.csv, curves.png")
    return evaluation
