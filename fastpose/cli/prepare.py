"""`fastpose prepare`."""

from __future__ import annotations

import argparse
import math
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpose.cli._common import config_or_run, new_verb
from fastpose.errors import ConfigError

if TYPE_CHECKING:
    from fastpose.data.crop_cache import CropCache

EPILOG = """\
examples:
  fastpose prepare coco/hrnet_w32_256x192 data/coco/crops data.root=data/coco --workers 8
  fastpose train coco/hrnet_w32_256x192 data.root=data/coco data.crop_cache=data/coco/crops
  fastpose prepare my.yaml crops --store raw          nothing to decode, samples the same to the byte; large
  fastpose prepare my.yaml crops --check              read every byte of a finished cache

Training cuts every person out of a picture again and again, in another place, size and turn each time. This
writes, once, the part of the picture around each training person that the configuration's scaling, turning
and half-body cuts can ever reach, so that an epoch decodes these parts instead of whole pictures. The
annotations and the augmentation stay what they are. Nothing is resized unless --max-side is given.

Interrupted or killed, the same command goes on where it was. A cache serves any configuration with the same
persons and the same or a smaller augmentation; training says so when it does not.
"""


def add_parser(verbs: Any) -> None:
    parser = new_verb(
        verbs, "prepare", "write a crop cache, for training without decoding whole pictures", EPILOG
    )
    parser.add_argument("config", help="a shipped configuration, a yaml file, or a run folder")
    parser.add_argument("out", type=Path, help="folder to write, or to go on with")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings that override the file's")
    parser.add_argument(
        "--workers", type=int, default=None, help="processes (default: one a core, at most 8; 0: none)"
    )
    parser.add_argument(
        "--quality", type=int, default=95, help="of the JPEGs, 1 to 100 (default: %(default)s)"
    )
    parser.add_argument(
        "--store",
        choices=("jpeg", "png", "raw"),
        default="jpeg",
        help="png (small, slow) and raw pixels (large, fast) lose nothing (default: %(default)s)",
    )
    parser.add_argument(
        "--max-side",
        type=int,
        default=0,
        metavar="PX",
        help="halve, third, ... parts whose longer side is more than this (default: 0, never)",
    )
    parser.add_argument(
        "--shard-mb", type=float, default=256, metavar="MB", help="size of a file (default: %(default)s)"
    )
    parser.add_argument(
        "--check", action="store_true", help="only compare a finished cache with its checksums"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from fastpose.data.crop_cache import CropCache
    from fastpose.data.encode import Encoding
    from fastpose.data.prepare import prepare_crops
    from fastpose.progress import progress_bar
    from fastpose.train.tasks import task_for
    from fastpose.train.tasks.pose import PoseTask
    from fastpose.train.tasks.pose_data import aspect_ratio, train_table

    config, _ = config_or_run(args.config, args.settings)
    if not isinstance(task_for(config), PoseTask):
        raise ConfigError(f"{args.config}: a crop cache holds persons, and segmentation takes whole pictures")
    table = train_table(config)
    if args.check:
        cache = CropCache(args.out)
        cache.check_fits(table, config.augment, aspect_ratio(config))
        cache.verify()
        print(f"{args.out}: whole, and fits the configuration")
        return
    if not (math.isfinite(args.shard_mb) and args.shard_mb * 2**20 >= 1):
        raise ConfigError(f"--shard-mb {args.shard_mb}: must be the megabytes of a file, such as 256")
    cores = len(os.sched_getaffinity(0))
    with progress_bar("pictures", len(set(table.image_index.tolist()))) as advance:
        cache = prepare_crops(
            table,
            args.out,
            augmentation=config.augment,
            aspect_ratio=aspect_ratio(config),
            encoding=Encoding(args.store, args.quality, args.max_side),
            shard_bytes=int(args.shard_mb * 2**20),
            workers=min(cores, 8) if args.workers is None else args.workers,
            on_bad=config.data.on_bad,
            advance=advance,
        )
    print(_summary(args.out, cache))
    print(f"next: fastpose train {args.config} {shlex.join([*args.settings, f'data.crop_cache={args.out}'])}")


def _summary(folder: Path, cache: CropCache) -> str:
    manifest = cache.manifest
    size = sum(shard["bytes"] for shard in manifest["shards"])
    lines = [
        f"{len(cache)} persons of {manifest['pictures']} pictures in {folder}: {size / 2**20:.1f} MB, "
        f"{size / len(cache) / 1024:.1f} KB each, {len(manifest['shards'])} shards"
    ]
    if manifest["reduced"]:
        lines.append(
            f"  {manifest['reduced']} reduced to at most {manifest['recipe']['max_side']} pixels a side"
        )
    if manifest["unreadable"]:
        lines.append(f"  {len(manifest['unreadable'])} left out, their pictures could not be read:")
        lines += [f"    {reason}" for reason in sorted(set(manifest["unreadable"].values()))[:10]]
    return "\n".join(lines)
