"""Lines of JSON: there at once, and whole after a kill or on a full disk."""

import json
import signal
import subprocess
import sys

import pytest
from video_out_cases import environment, limited, result

from fastpose.errors import OutputError
from fastpose.infer.video_out import JsonLines


def test_lines_can_be_read_while_they_are_written(tmp_path):
    path = tmp_path / "new/frames.jsonl"
    with JsonLines(path) as lines:
        for frame in range(3):
            lines.write(result(frame=frame))
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            assert [row["frame"] for row in rows] == list(range(frame + 1))
    assert rows[1]["time"] == 1 / 25
    person = rows[1]["people"][1]
    assert person["id"] == 12
    assert person["box"] == [150, 40, 60, 120]
    assert person["keypoints"]["nose"]["score"] == 0.8
    assert person["keypoints"]["right_ear"] is None
    with JsonLines(path) as lines:
        lines.write(result(ids=()))
    assert [json.loads(line)["people"] for line in path.read_text().splitlines()] == [[]]


def test_a_kill_leaves_whole_lines(tmp_path):
    path = tmp_path / "frames.jsonl"
    code = (
        "from video_out_cases import *\n"
        f"lines = JsonLines({str(path)!r})\n"
        "print('ready', flush=True)\n"
        "frame = 0\n"
        "while True:\n"
        "    lines.write(result(frame=frame))\n"
        "    frame += 1\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment())
    process.stdout.readline()
    while not path.stat().st_size > 50_000:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    text = path.read_text()
    assert text.endswith("\n")
    assert [json.loads(line)["frame"] for line in text.splitlines()] == list(range(text.count("\n")))


def test_a_full_disk_leaves_whole_lines(tmp_path):
    path = tmp_path / "frames.jsonl"
    code = (
        "    lines = JsonLines(path)\n    for frame in range(100):\n        lines.write(result(frame=frame))"
    )
    assert "frames.jsonl: cannot be written" in limited(code, path, 20_000)
    text = path.read_text()
    assert text.endswith("\n")
    assert 3 < text.count("\n") < 20
    assert [json.loads(line)["frame"] for line in text.splitlines()] == list(range(text.count("\n")))


def test_lines_need_a_file_that_can_be_written(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        JsonLines(tmp_path)
