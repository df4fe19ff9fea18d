"""Results to write, and processes that run out of disk, for tests of what is written of a video."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np

from fastpose.infer.result import Boxes, Keypoints, Result
from fastpose.infer.video_out import JsonLines, VideoWriter
from fastpose.keypoints import COCO_17

__all__ = ["JsonLines", "Path", "VideoWriter", "closing", "environment", "limited", "np", "result"]
TESTS = Path(__file__).resolve().parent


def environment():
    """In which another process finds this module and the package."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parents[1])])}


def result(ids=(7, 12), frame=3, **more):
    count = len(ids)
    boxes = Boxes(
        np.array([[20.0, 30, 60, 120], [150, 40, 60, 120]])[:count], np.full(count, 0.5), (200, 300)
    )
    xy = np.random.default_rng(0).uniform(40, 150, (count, 17, 2))
    valid = np.ones((count, 17), bool)
    valid[:, 4] = False
    return Result(
        name="film",
        orig_shape=(200, 300),
        boxes=Boxes(boxes.xywh, boxes.conf, boxes.orig_shape, np.array(ids)),
        keypoints=Keypoints(xy, np.full((count, 17), 0.8), valid, (200, 300)),
        keypoint_set=COCO_17,
        frame=frame,
        time=frame / 25,
        pixels=np.full((200, 300, 3), 40, np.uint8),
        **more,
    )


def limited(code, path, limit):
    """Runs code in a process whose files may not grow beyond `limit` bytes, as on a full disk."""
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from fastpose.errors import OutputError\n"
        "from video_out_cases import *\n"
        f"path = Path({str(path)!r})\n"
        f"try:\n{code}\nexcept OutputError as error:\n    print('OutputError:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), check=True
    )
    return done.stdout
