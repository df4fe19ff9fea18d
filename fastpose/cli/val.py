"""`fastpose val`."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from fastpose.cli._common import config_or_run, new_verb, print_left_out, tell_missing_pckh

EPILOG = """\
examples:
  fastpose val runs/train/demo
  fastpose val coco/hrnet_w32_256x192 --weights pose_hrnet_w32_256x192.pth data.root=data/coco
  fastpose val coco/hrnet_w48_384x288 --weights pose_hrnet_w48_384x288.pth data.root=data/coco \\
      val.boxes=detector val.detections=COCO_val2017_detections_AP_H_56_person.json

Published COCO numbers use the detector's boxes; val.boxes=gt (the default, as in the official yaml files)
uses the annotated ones and gives about 2 AP more. The table says which were used.
"""


def add_parser(verbs: Any) -> None:
    parser = new_verb(verbs, "val", "evaluate a run or a checkpoint on a data set", EPILOG)
    parser.add_argument("config", help="a run folder, a shipped configuration or a yaml file")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings that override the file's")
    parser.add_argument("--weights", type=Path, help="weights to evaluate (default: the run's best)")
    parser.add_argument(
        "--out",
        type=Path,
        help="write a json there: keypoints in COCO result format, "
        "of a segmentation network its scores and confusion matrix",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from fastpose.errors import ConfigError
    from fastpose.infer.results import write_results
    from fastpose.infer.table import evaluation_text
    from fastpose.progress import progress_bar
    from fastpose.train.parallel.distributed import start_world
    from fastpose.train.tasks import task_for

    config, folder = config_or_run(args.config, args.settings)
    weights = args.weights or (folder / "best.safetensors" if folder else config.model.weights)
    if weights is None:
        raise ConfigError(f"{args.config} is not a run folder: name the checkpoint with --weights FILE")
    with start_world(config.run.device, patience=config.run.patience) as world:
        task = task_for(config)
        table = task.val_table()
        model = task.build_model(table, weights).to(world.device)
        rows = task.rows(len(table), world)
        with progress_bar("evaluating", rows) if world.is_main else nullcontext() as advance:
            told = advance or (lambda size: None)
            evaluation, _ = task.validate(model, table, world.device, told, world)
    if not world.is_main:
        return
    title = f"{weights}\n{task.conditions(model, len(table))}"
    print_left_out(table)
    print(evaluation_text(evaluation, title))
    tell_missing_pckh(evaluation.headline)
    if args.out:
        write_results(args.out, evaluation.results)
        print(f"results: {args.out}")
