"""`fastpose val`."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpose.cli._common import config_or_run, new_verb

if TYPE_CHECKING:
    from fastpose.train.config import Config

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
    parser.add_argument("--out", type=Path, help="write the results there in COCO format (json)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from fastpose.errors import ConfigError
    from fastpose.infer.results import write_results
    from fastpose.infer.table import metric_table
    from fastpose.progress import progress_bar
    from fastpose.train.datasets import build_model, val_table
    from fastpose.train.distributed import start_world
    from fastpose.train.validate import rows_of, validate

    config, folder = config_or_run(args.config, args.settings)
    weights = args.weights or (folder / "best.safetensors" if folder else config.model.weights)
    if weights is None:
        raise ConfigError(f"{args.config} is not a run folder: name the checkpoint with --weights FILE")
    with start_world(config.run.device, patience=config.run.patience) as world:
        table = val_table(config)
        model = build_model(config, table.keypoints, weights).to(world.device)
        rows = rows_of(config, len(table), world)
        with progress_bar("evaluating", len(rows)) if world.is_main else nullcontext() as advance:
            told = advance or (lambda size: None)
            evaluation, _ = validate(model, config, table, world.device, told, world)
    if not world.is_main:
        return
    print(
        metric_table(evaluation.metrics, title=_title(config, weights, len(table), model.meta.channel_order))
    )
    if args.out:
        write_results(args.out, evaluation.results)
        print(f"results: {args.out}")


def _title(config: Config, weights: Path | str, persons: int, channel_order: str) -> str:
    """What the figures rest on: boxes, crops, precision, flip test and refinement."""
    val, (width, height) = config.val, config.data.input_size
    boxes = f"detector boxes from {val.detections}" if val.boxes == "detector" else "annotated boxes"
    flip = "with" if val.flip_test else "without"
    crops = f"crops {width}x{height} {channel_order}"
    return f"{weights}\n{persons} {boxes}, {crops}, amp {val.amp}, {flip} flip test, refine {val.refine}"
