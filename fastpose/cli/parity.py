"""`fastpose parity`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastpose.cli._common import new_verb, quiet, tell_missing_pckh

EPILOG = """\
examples:
  fastpose parity coco/hrnet_w32_256x192 pose_hrnet_w32_256x192.pth
  fastpose parity coco/hrnet_w32_256x192 pose_hrnet_w32_256x192.pth --data data.root=data/coco \\
      val.detections=COCO_val2017_detections_AP_H_56_person.json
  fastpose parity pose_resnet50 pose_resnet_50_256x192.pth.tar

Names and shapes are matched strictly; what does not fit is listed and ends with exit code 2. The differences
are from float64 in plain PyTorch, on crops of rendered figures. With --data the checkpoint is also scored, in
every convention that published figures use, so that an AP, PCKh or mIoU can be compared with the right one.
The convention that fits becomes a setting of `fastpose val`, such as val.flip_test or val.scales.
"""


def add_parser(verbs: Any) -> None:
    parser = new_verb(verbs, "parity", "prove that a checkpoint computes here what it did elsewhere", EPILOG)
    parser.add_argument(
        "model", help="a network of `fastpose models`, or a configuration of `fastpose train --list`"
    )
    parser.add_argument("weights", type=Path, help="an official checkpoint, or any other weights file")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of the configuration")
    parser.add_argument("--data", action="store_true", help="score it too, on the configuration's data")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from fastpose.device import pick_device
    from fastpose.errors import ConfigError
    from fastpose.models import list_models
    from fastpose.train.parity import compare_forward, compare_names

    named = args.model in list_models()
    if named and (args.data or args.settings):
        raise ConfigError(
            f"{args.model} is a network: name a configuration for data and settings, "
            "see `fastpose train --list`"
        )
    model, config, task, table = _from_name(args) if named else _from_config(args)
    _print_names(args.weights, model, compare_names(model, args.weights))
    device = pick_device(config.run.device if config else "auto")
    _print_differences(compare_forward(model, device), device, model.meta.task)
    if args.data:
        _print_scores(task, table, model, args.weights, device)


def _from_name(args: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    from fastpose.models.weights import create_fitting

    return create_fitting(args.model, args.weights), None, None, None


def _from_config(args: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    from fastpose.train.config_io import load_config
    from fastpose.train.tasks import task_for

    settings = args.settings if args.data else ["data.root=.", *args.settings]
    config = load_config(args.model, settings)
    task = task_for(config)
    if not args.data:
        from fastpose.models.weights import create_fitting
        from fastpose.train.tasks.networks import network_options

        model = create_fitting(config.model.name, args.weights, **network_options(config))
        return model, config, task, None
    table = task.val_table()
    return task.build_model(table, args.weights), config, task, table


def _print_names(weights: Path, model: Any, names: Any) -> None:
    from fastpose.wording import counted

    meta = model.meta
    width, height = meta.input_size
    print(f"{weights}: {meta.model} with {meta.counted}")
    print(
        f"  {names.matched} of {names.file_tensors} tensors fit in name and shape, none is missing; "
        f"{names.parameters:,} parameters"
    )
    if names.unused:
        more = " ..." if len(names.unused) > 4 else ""
        unused = counted(len(names.unused), "tensor")
        print(f"  {unused} that the network never uses: {', '.join(names.unused[:4])}{more}")
    print(
        f"  fed as {meta.channel_order.upper()} at {width}x{height}, (pixel / 255 - {_triple(meta.mean)}) / "
        f"{_triple(meta.std)}"
    )


def _triple(values: tuple[float, ...]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"


def _print_differences(differences: list[Any], device: Any, task: str) -> None:
    moved = "classes moved" if task == "segmentation" else "peaks moved"
    print(f"\ndifference from float64 in plain PyTorch, on {device}:")
    print(f"  {'':40} {'relative':>9} {'largest':>9} {moved:>13}")
    for row in differences:
        moved = "" if row.moved is None else f"{row.moved:.2%}"
        print(f"  {row.way:40} {row.relative:9.1e} {row.largest:9.1e} {moved:>13}")


def _print_scores(task: Any, table: Any, model: Any, weights: Path, device: Any) -> None:
    from fastpose.infer.table import evaluation_text
    from fastpose.progress import progress_bar
    from fastpose.train.parallel.distributed import World
    from fastpose.train.tasks import task_for

    world = World(device)
    print(f"\n{task.describe(table)}, in every convention:")
    for name, config in task.conventions(model).items():
        own = task_for(config)
        samples = own.val_table()
        with quiet("fastpose.models"):  # it was said above, and is the same each time
            network = own.build_model(samples, weights).to(device)
        with progress_bar(name, own.rows(len(samples), world)) as advance:
            evaluation, _ = own.validate(network, samples, device, advance, world)
        print()
        print(evaluation_text(evaluation, f"{name}: {own.conditions(network, len(samples))}"))
    tell_missing_pckh(evaluation.headline)
