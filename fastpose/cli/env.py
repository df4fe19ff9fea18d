"""`fastpose env`."""

from __future__ import annotations

import argparse
import os
import platform
from importlib import metadata
from typing import Any

from fastpose.cli._common import new_verb

EPILOG = "Paste its output into a bug report. FASTPOSE_BACKEND=auto|triton|cpp|reference chooses the backend."

PACKAGES = ("torch", "triton", "numpy", "opencv-python-headless", "pycocotools", "safetensors", "scipy")
OTHER_CV2 = ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")


def add_parser(verbs: Any) -> None:
    parser = new_verb(
        verbs, "env", "print versions, devices, backends and what each operation runs, with reasons", EPILOG
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    import cv2
    import torch

    from fastpose import __version__
    from fastpose.backend import backend_status

    print(f"fastpose {__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(", ".join(f"{name} {_version(name)}" for name in PACKAGES))
    print(f"CPU: {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            print(f"GPU {index}: {torch.cuda.get_device_name(index)}, CUDA {torch.version.cuda}")
    else:
        print("GPU: none that torch can use")
    for name, (available, reason) in backend_status().items():
        print(f"backend {name}: {'' if available else 'not '}available" + (f" ({reason})" if reason else ""))
    for device in ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))):
        _print_operations(device)
    doubled = [name for name in OTHER_CV2 if _version(name) != "not installed"]
    if doubled:
        print(f"warning: {', '.join(doubled)} shares the cv2 folder with opencv-python-headless; keep one")
    if int(cv2.__version__.split(".")[0]) >= 5:
        print(f"warning: OpenCV {cv2.__version__} cuts other crops than 4.x, on which published numbers rest")


def _print_operations(device: str) -> None:
    from fastpose.backend import get_backend
    from fastpose.ops import op_status

    print(f"operations on {device}, backend {get_backend()}:")
    status = op_status(device)
    width = max(map(len, status))
    for name, (backend, reason) in status.items():
        print(f"  {name:{width}}  {backend:9}  {reason}")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
