"""`fastpose predict` for a video, a camera or pictures in order."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from glob import has_magic
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
    from fastpose.infer.video_in import is_camera, is_video

    asked = args.track or args.smooth or args.video or args.jsonl or args.rate is not None
    return bool(asked) or any(is_video(name) or is_camera(name) for name in args.images)


def run_sequence(args: argparse.Namespace, make: Callable[[argparse.Namespace], Predictor]) -> None:
    """Predicts the frames and writes the video and the lines, both into --out where neither has a name.

    `make` is called for the predictor once the source is known to be there.
    """
    from fastpose.errors import DataError
    from fastpose.infer.outputs import check_outputs, source_files
    from fastpose.infer.video_run import predict_video
    from fastpose.progress import progress_bar
    from fastpose.wording import counted

    source, frames, rate = _source(args)
    boxes = _boxes(args, source)
    video, jsonl = _outputs(args, source)
    check_outputs([*source_files(source), *other_files(args)], video=video, jsonl=jsonl)
    predictor = make(args)
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
    numbers = f", {counted(len(found.ids), 'number')}" if args.track or args.smooth else ""
    people, frame_count = counted(found.people, "person"), counted(found.frames, "frame")
    print(f"{people} in {frame_count}{numbers}, {len(found.skipped)} skipped")
    if found.people == 0 and found.skipped:
        raise DataError(f"nobody to predict in {found.frames} frames: all boxes or pictures were skipped")
    print(f"results: {' and '.join(str(path) for path in (video, jsonl) if path)}")


def other_files(args: argparse.Namespace) -> list[Path]:
    """What is read besides pictures and videos."""
    from fastpose.models.checkpoint_formats import weights_file

    return [weights_file(args.weights), *([args.boxes] if args.boxes else [])]


def _outputs(args: argparse.Namespace, source: Any) -> tuple[Path | None, Path | None]:
    """The video, a folder of PNGs where pictures are not of one size, and the lines, as far as wanted.

    ConfigError where a video is asked for by name that cannot be.
    """
    from fastpose.errors import ConfigError
    from fastpose.infer.picture_sizes import other_size

    video, jsonl = args.video, args.jsonl
    if video is None and (jsonl is not None or args.no_draw):
        return None, jsonl or args.out / f"{_stem(args.images)}.jsonl"
    named, stem = video is not None, _stem(args.images)
    video = video if named else args.out / f"{stem}.mp4"
    jsonl = jsonl if named else args.out / f"{stem}.jsonl"
    pictures = source if isinstance(source, list) and video.suffix else []
    other = other_size(pictures, upright=not args.no_exif)
    if other is None:
        return video, jsonl
    (width, height), (other_width, other_height) = other.first_size, other.other_size
    told = f"{other.first} has {width}x{height} pixels and {other.other} {other_width}x{other_height}"
    if named:
        raise ConfigError(
            f"{video}: {told}, and a video has one size; name a folder, as in --video "
            f"{video.with_suffix('')}, which gets a PNG a picture, or give --no-draw without --video"
        )
    print(f"{told}: a PNG a picture in place of a video, which has one size")
    return args.out / f"{stem}_drawn", jsonl


def _stem(names: list[str]) -> str:
    """Of the files that are written: the name of the only source, else 'frames'."""
    stem = Path(names[0]).stem if len(names) == 1 and not has_magic(names[0]) else ""
    return stem if stem.strip(".") else "frames"


def _source(args: argparse.Namespace) -> tuple[Any, int | None, float]:
    """What the predictor reads, how many frames it says it has (None: unknown), and how many a second."""
    from fastpose.errors import ConfigError
    from fastpose.infer.sources import find_images
    from fastpose.infer.video_in import is_camera, is_video, video_facts

    names = args.images
    if args.no_draw and args.video:
        raise ConfigError("--no-draw and --video: give one of the two")
    if len(names) > 1 and any(is_video(name) or is_camera(name) for name in names):
        raise ConfigError(f"one video or camera at a time, got {', '.join(names)}")
    if is_camera(names[0]):
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
