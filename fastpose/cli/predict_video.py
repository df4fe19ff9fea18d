"""`fastpose predict` for a video, a camera or pictures in order."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastpose.infer.predictor import Predictor

RATE = 25.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a video; each of them makes pictures a video too."""
    group = parser.add_argument_group("video")
    group.add_argument("--track", action="store_true", help="number people from frame to frame")
    group.add_argument("--smooth", action="store_true", help="calm the joints' jitter; tracks too")
    group.add_argument(
        "--video", type=Path, metavar="OUT", help="annotated .mp4 or .avi, or a folder for a PNG a frame"
    )
    group.add_argument("--jsonl", type=Path, metavar="FILE", help="one line of JSON a frame")
    group.add_argument(
        "--rate",
        type=float,
        help="frames a second of --video, and of pictures (default: those of the source, else 25)",
    )


def is_sequence(args: argparse.Namespace) -> bool:
    """Whether what is to be predicted is a video, or pictures treated as one."""
    from fastpose.infer.video_in import is_video

    asked = args.track or args.smooth or args.video or args.jsonl or args.rate is not None
    return bool(asked) or any(is_video(name) or _is_camera(name) for name in args.images)


def run_sequence(args: argparse.Namespace, make: Callable[[argparse.Namespace], Predictor]) -> None:
    """Predicts the frames and writes the video and the lines, both into --out where neither has a name.

    `make` is called for the predictor once the source is known to be there.
    """
    from fastpose.errors import DataError
    from fastpose.files import make_folder
    from fastpose.infer.video_run import predict_video
    from fastpose.progress import progress_bar

    source, frames, rate = _source(args)
    boxes = _boxes(args, source)
    predictor = make(args)
    video, jsonl = args.video, args.jsonl
    if video is None and jsonl is None:
        out = make_folder(args.out)
        stem = Path(args.images[0]).stem if len(args.images) == 1 else "frames"
        video, jsonl = None if args.no_draw else out / f"{stem}.mp4", out / f"{stem}.jsonl"
    with progress_bar("predicting", frames) as advance:
        found = predict_video(
            predictor,
            source,
            boxes=boxes,
            video=video,
            jsonl=jsonl,
            rate=rate if args.rate is None else args.rate,
            threshold=args.threshold,
            on_frame=advance,
        )
    for line in found.skipped:
        print(f"skipped: {line}")
    numbers = f", {len(found.ids)} numbers" if args.track or args.smooth else ""
    print(f"{found.people} persons in {found.frames} frames{numbers}, {len(found.skipped)} skipped")
    if found.people == 0 and found.skipped:
        raise DataError(f"nobody to predict in {found.frames} frames: all boxes or pictures were skipped")
    print(f"results: {' and '.join(str(path) for path in (video, jsonl) if path)}")


def _source(args: argparse.Namespace) -> tuple[Any, int | None, float]:
    """What the predictor reads, how many frames it says it has (None: unknown), and how many a second."""
    from fastpose.errors import ConfigError
    from fastpose.infer.sources import find_images
    from fastpose.infer.video_in import is_video, video_facts

    names = args.images
    if args.no_draw and args.video:
        raise ConfigError("--no-draw and --video: give one of the two")
    if len(names) > 1 and any(is_video(name) or _is_camera(name) for name in names):
        raise ConfigError(f"one video or camera at a time, got {', '.join(names)}")
    if _is_camera(names[0]):
        return int(names[0]), None, RATE
    if is_video(names[0]):
        facts = video_facts(Path(names[0]))
        return names[0], facts.frames or None, facts.rate or RATE
    files = find_images(names)
    return files, len(files), RATE


def _boxes(args: argparse.Namespace, source: Any) -> Any:
    from fastpose.errors import ConfigError
    from fastpose.infer.results import read_boxes

    if not args.boxes:
        return None
    if not isinstance(source, list):
        raise ConfigError("--boxes: names pictures, which a video has none of; use --detector")
    return read_boxes(args.boxes, source, min_score=args.box_score)


def _is_camera(name: str) -> bool:
    """A number that is no file is a camera's."""
    return name.isascii() and name.isdigit() and not Path(name).exists()
