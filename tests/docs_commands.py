"""What a command line of the documents must be, and how much of it a test can run."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import torch.distributed.run
from docs_blocks import ROOT, SHORTER, SMALL

from fastpose.cli import VERBS, _parse, main
from fastpose.models.registry import task_of
from fastpose.train.config_io import load_config

SHELL = ("cd", "git", "source")
PARSED = ("app", "export", "models", "parity")
"""Verbs of which only the command line is tested here: one serves until it is stopped, others take long."""


def check_command(words: list[str]) -> list[str] | None:
    """The words behind `fastpose` where it can run on one machine; AssertionError for what is not there."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    program, rest = words[0], words[1:]
    if program == "torchrun":
        inner = torch.distributed.run.get_args_parser().parse_args(rest)
        name, behind = inner.training_script, inner.training_script_args
        check_command(["python", *(["-m"] if inner.module else []), name, *behind])
        return None
    if [program, *rest[:2]] == ["python", "-m", "fastpose"]:
        return check_command(rest[1:])
    if program != "fastpose":
        _check_other(program, rest)
        return None
    if any(re.fullmatch(r"\[.*|.*\.\.\.\]|[A-Z]{3,}", word) for word in rest[:2]):  # usage, not a call
        verbs = [module.__name__.rpartition(".")[2] for module in VERBS]
        assert rest[0] in (*verbs, "VERB"), f"fastpose has no verb {rest[0]}"
        return None
    _check_fastpose(rest)
    return rest


def run_command(words: list[str], done: set[tuple[str, ...]]) -> None:
    """Runs `fastpose WORDS` in the working folder, once, shortened where it would take long."""
    if words[0] in PARSED or tuple(words) in done or "--help" in words:
        return
    done.add(tuple(words))
    shorter = _shortened(words)
    if shorter is not None:
        code = main(shorter)
        assert code == 0, f"fastpose {' '.join(shorter)} ended with {code}"


def _check_fastpose(words: list[str]) -> None:
    """The real parser takes it, and its configuration and settings can be loaded."""
    try:
        args = _parse(words)
    except SystemExit as stop:
        if stop.code:
            raise AssertionError(f"fastpose {' '.join(words)}: refused") from None
        return
    name = getattr(args, "config", None) or "samples/figures"
    settings = getattr(args, "settings", ["data.root=."])
    load_config("samples/figures" if name.startswith("runs/") else name, settings)


def _shortened(words: list[str]) -> list[str] | None:
    """The words as a test can run them, None where nothing short is left."""
    verb, text = words[0], " ".join(words)
    if verb == "figures":
        return [*words, "--count", "3", "--size", "96", "96"]
    if verb == "predict" and re.search(r"\.onnx|\.pt2|--engine|--detector \w+:", text):  # other packages
        return None
    if verb == "predict" and ".pth" in text:
        return [*words, "--no-flip"]
    if verb == "val" and "runs/" not in text:
        return [*words, "data.input_size=[64, 64]", "val.flip_test=false", "data.workers=0"]
    if verb == "prepare":
        return [*words, "--workers", "1"]
    if verb in ("train", "demo") and not {"--list", "--settings"} & {*words}:
        return _short_training(words)
    return words


def _short_training(words: list[str]) -> list[str] | None:
    """With the smallest HRNet in the place of another; training other families has tests of its own."""
    args = _parse(words)
    name = getattr(args, "config", "samples/figures")
    if (Path(name) / "config.yaml").is_file():
        return [*words, *SHORTER]
    config = load_config(name, args.settings)
    here = config.data.format == "figures" or Path(config.data.root or "none").is_dir()
    task = task_of(config.model.name)
    if not here or not config.model.name.startswith(("hrnet_w", "hrnet_seg_w")):
        return None
    other = [f"model.name={SMALL[task]}", "model.weights=null", *SHORTER]
    if config.data.crop_cache:  # of the same aspect ratio
        other.append("data.input_size=[96, 128]")
    if "--resume" in words:
        other.append("run.dir=resumed")  # elsewhere the run is there, and of another network
    return [*words, *other]


def _check_other(program: str, rest: list[str]) -> None:
    """make, pip, python and pytest name what is there; of other programs only SHELL's are expected."""
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {*rest} <= {*targets}, f"make {rest}: the targets are {targets}"
    elif program == "pip":
        _check_pip(rest)
    elif program == "python" and rest[0] == "-m" and rest[1] != "pytest":
        assert importlib.util.find_spec(rest[1]) is not None, f"python -m {rest[1]}: no such module"
    elif program in ("python", "pytest"):
        paths = [word.partition("::")[0] for word in rest if word.endswith(".py") or word == "tests"]
        missing = [path for path in paths if not (ROOT / path).exists()]
        assert not missing, f"{program}: {missing} are not there"
    else:
        assert program in SHELL, f"{program}: not a command that the documents may name"


def _check_pip(rest: list[str]) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for word in rest:
        extras = re.fullmatch(r"(?:fastpose|\.)\[([\w,]+)\]", word)
        for extra in extras[1].split(",") if extras else []:
            assert re.search(rf"^{extra} = \[", text, re.MULTILINE), f"pip: there is no extra {extra}"
        assert not word.endswith(".txt") or (ROOT / word).exists(), f"pip: {word} is not there"
