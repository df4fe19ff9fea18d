"""Every code block of README, CONTRIBUTING and docs/ does what it says; docs_blocks.py has the rules."""

import json
import re

import pytest
import yaml
from docs_blocks import LANGUAGES, PAGES, ROOT, commands, find_blocks, make_world, names_in_use
from docs_commands import check_command, run_command

from fastpose.data import read_coco
from fastpose.infer.results import read_boxes
from fastpose.train.config_io import load_config

BLOCKS = [block for page in PAGES for block in find_blocks(page)]
RUN = [page for page in PAGES if any(block.language in ("", "python") for block in find_blocks(page))]
MOST_LEFT_OUT = 4


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder, and the commands that ran in it."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = make_world(folder)
    return folder, done


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_run_in_the_order_of_their_page(page, world, monkeypatch):
    folder, done = world
    monkeypatch.chdir(folder)
    names = names_in_use()
    run = [block for block in find_blocks(page) if not block.reason]
    for block in run:
        if block.language == "python":
            if "onnxruntime" in block.text:
                pytest.importorskip("onnxruntime")
            exec(compile("\n" * block.line + block.text, page, "exec"), names)
        if block.language == "":
            run_lines(block.text, done)
    assert run, "every block of the page is left out"


def run_lines(text, done):
    for words in commands(text):
        if re.fullmatch(r"[a-z_]+\.[a-z_.]+=.*", words[0]):
            load_config("samples/figures", [words[0]])
        elif (behind := check_command(words)) is not None:
            run_command(behind, done)


def test_other_blocks_are_what_they_say(tmp_path):
    for block in BLOCKS:
        assert block.language in LANGUAGES, block.id
        if block.language == "json":
            check_json(json.loads(block.text), tmp_path / "block.json")
        if block.language == "yaml":
            (tmp_path / "block.yaml").write_text(block.text)
            assert isinstance(yaml.safe_load(block.text), dict), block.id
            load_config(tmp_path / "block.yaml", [])


def check_json(value, path):
    """A list is boxes, an object annotations; the readers of both must find everybody in it."""
    path.write_text(json.dumps(value))
    if isinstance(value, list):
        names = [path.parent / row["file_name"] for row in value]
        assert sum(len(found.boxes) for found in read_boxes(path, names).values()) == len(value)
    else:
        (path.parent / "images").mkdir(exist_ok=True)
        table = read_coco(path, path.parent / "images", aspect_ratio=1.0, on_bad="stop")
        assert len(table) == len(value["annotations"])


def test_few_blocks_are_left_out():
    assert len([block.id for block in BLOCKS if block.reason]) <= MOST_LEFT_OUT


def test_blocks_and_commands_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: a reason -->\n\n```python\n1\n```\ntext\n```\nmake test\n```\n")
    assert [(b.line, b.language, b.text, b.reason) for b in find_blocks(page)] == [
        (3, "python", "1", "a reason"), (7, "", "make test", None),
    ]  # fmt: skip
    text = "$ fastpose train a b='c d' \\\n    --resume  and what it does\n# nothing\nmake test  # runs\n"
    assert commands(text) == [["fastpose", "train", "a", "b=c d", "--resume"], ["make", "test"]]


@pytest.mark.parametrize(
    "line",
    [
        "fastpose trane coco/hrnet_w32_256x192",
        "fastpose train coco/hrnet_w32",
        "fastpose train samples/figures train.epoch=3",
        "fastpose predict runs/train/demo photo.jpg --boxs boxes.json",
        "torchrun --nprocs=8 -m fastpose train samples/figures",
        "torchrun --nproc-per-node=8 -m fastpose train samples/figures train.epoch=3",
        "make demos",
        "pip install 'fastpose[exports]'",
        "python -m bench.reports",
        "fastposed env",
    ],
)
def test_a_wrong_command_is_refused(line, capfd):
    with pytest.raises((AssertionError, ValueError, SystemExit)):
        check_command(commands(line)[0])
