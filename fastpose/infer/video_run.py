"""Prediction over a video: an annotated copy and a line of JSON a frame, written as the frames come."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastpose.infer.draw import check_threshold
from fastpose.infer.outputs import check_outputs, source_files
from fastpose.infer.predictor import Predictor
from fastpose.infer.video_out import JsonLines, annotate, open_writer


@dataclass
class VideoSummary:
    """Frames read, people found in all of them together, the numbers they got where they are tracked, and a
    line for each frame or box that could not be used."""

    frames: int = 0
    people: int = 0
    ids: set[int] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)


def predict_video(
    predictor: Predictor,
    source: Any,
    *,
    boxes: Any = None,
    video: Path | None = None,
    jsonl: Path | None = None,
    rate: float = 25.0,
    threshold: float = 0.2,
    on_frame: Callable[[int], None] = lambda count: None,
) -> VideoSummary:
    """Predicts a video, a camera or pictures in order, and writes what is asked for frame by frame.

    video: an annotated .mp4 or .avi with `rate` frames a second, or a folder for PNGs. jsonl: a file with
    `Result.to_json` of each frame. Joints with a score of at most `threshold` are not drawn. However the
    frames end, by an error too, the video holds those that were drawn. A picture that cannot be read has a
    line in `jsonl` and none in the video. Raises what the predictor and the writers raise, and OutputError
    for a name of what is read, before anything is written.
    """
    check_threshold(threshold)
    check_outputs(source_files(source), video=video, jsonl=jsonl)
    summary = VideoSummary()
    with ExitStack() as stack:
        writer = stack.enter_context(closing(open_writer(video, rate))) if video else None
        lines = stack.enter_context(JsonLines(jsonl)) if jsonl else None  # last: it empties an older file
        for result in predictor(source, boxes, stream=True):
            summary.frames += 1
            summary.people += len(result)
            summary.ids.update([] if result.boxes.id is None else result.boxes.id.tolist())
            summary.skipped += [f"{result.name}: {reason}" for reason in result.skipped]
            if lines is not None:
                lines.write(result)
            if result.error is not None:
                summary.skipped.append(str(result.error))
            elif writer is not None:
                writer.write(annotate(result, threshold=threshold))
            on_frame(1)
    return summary
