"""`fastpose predict` with a segmentation network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastpose.infer.segmentation_predictor import Segmenter

OWN = ("scales", "window")
"""Options that only segmentation networks take."""
SHARED = ("weights", "images", "out", "config", "device", "amp", "no_flip", "no_exif", "no_draw", "workers")
"""And those that all networks take; all others are of pose networks."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of segmentation networks."""
    group = parser.add_argument_group("segmentation networks")
    group.add_argument(
        "--scales", type=_numbers, metavar="SCALE,...",
        help="sizes of a picture whose probabilities are averaged, such as 0.75,1,1.25 (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--window", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"),
        help="take pictures in windows of this size (default: whole up to two megapixels, 1024x1024 above)",
    )  # fmt: skip
    parser.set_defaults(usual=parser.get_default)


def _numbers(text: str) -> list[float]:
    """Of `--scales`; `fastpose.infer.segmentation_forward.check_passes` says which they may be."""
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers with commas between them, such as 0.75,1,1.25, got {text!r}"
        ) from None


def is_segmentation(args: argparse.Namespace) -> bool:
    """Whether the weights are those of a segmentation network, as they or --config say.

    ConfigError, naming them, for options of the other kind of networks.
    """
    from fastpose.errors import ConfigError
    from fastpose.infer.network_in import is_exported

    task, name = _network(args)
    if task == "segmentation":
        if others := _given(args, [key for key in vars(args) if key not in (*OWN, *SHARED)]):
            raise ConfigError(
                f"{', '.join(others)}: for networks that find keypoints, and {name} gives every pixel of a "
                "picture a class; leave out"
            )
    elif name is not None and (others := _given(args, OWN)):
        what = f"{name} finds keypoints in people's boxes; leave out"
        if is_exported(name):
            what = f"of exported ones, as {name} is, those for poses alone are run; predict with the weights"
        raise ConfigError(f"{', '.join(others)}: for segmentation networks, and {what}")
    return task == "segmentation"


def run_segmentation(args: argparse.Namespace) -> None:
    """Writes labels and an overlay for every picture, and prints how much of them all each class has."""
    from fastpose.errors import DataError
    from fastpose.files import make_folder
    from fastpose.infer.segmentation_files import LABELS, segment_files
    from fastpose.infer.segmentation_result import class_shares
    from fastpose.infer.sources import find_images
    from fastpose.progress import progress_bar

    _check_pictures(args.images)
    files = find_images(args.images)
    segmenter = _segmenter(args)
    out, draw = make_folder(args.out), not getattr(args, "no_draw", False)
    with progress_bar("predicting", len(files)) as advance:
        found = segment_files(segmenter, files, out, draw=draw, on_file=advance)
    for line in found.skipped:
        print(f"skipped: {line}")
    if not found.pictures:
        raise DataError(f"nothing to label: none of {len(files)} pictures could be read")
    shares = ", ".join(
        f"{row['name']} {row['share']:.1%}" for row in class_shares(found.counts, segmenter.classes)
    )
    print(f"{len(files)} pictures, {len(found.skipped)} skipped; of all pixels {shares}")
    print(f"results: {out / LABELS}{', and an overlay of each picture beside that folder' if draw else ''}")


def _network(args: argparse.Namespace) -> tuple[str, str | None]:
    """Task and name of the network; 'pose' and None where nothing says."""
    from fastpose.infer.network_in import is_exported
    from fastpose.models import read_meta
    from fastpose.models.checkpoint_formats import weights_file
    from fastpose.models.registry import task_of

    weights = weights_file(args.weights)
    if args.config:
        name = _config(args).model.name
        return task_of(name), name
    if is_exported(weights):
        return "pose", weights.name
    meta = read_meta(weights)
    return ("pose", None) if meta is None else (meta.task, meta.model)


def _config(args: argparse.Namespace) -> Any:
    """That of --config; its `data.root` may be missing, since nothing is read from there but names."""
    from fastpose.errors import ConfigError
    from fastpose.train.config_io import load_config

    try:
        return load_config(args.config)
    except ConfigError:
        config = load_config(args.config, ["data.root=."])
        config.data.root = None
        return config


def _given(args: argparse.Namespace, keys: Any) -> list[str]:
    """Options of these keys that are not what they are where nobody gives them."""
    return [f"--{key.replace('_', '-')}" for key in keys if getattr(args, key) != args.usual(key)]


def _check_pictures(names: list[str]) -> None:
    from fastpose.errors import ConfigError
    from fastpose.infer.video_in import is_video

    for name in names:
        if is_video(name):
            raise ConfigError(
                f"{name}: a video, of which a segmentation network labels single pictures; in Python "
                "fastpose.Segmenter(...) takes videos, with stream=True"
            )


def _segmenter(args: argparse.Namespace) -> Segmenter:
    """By the configuration that is named, whose `val` says what no option does."""
    from fastpose.infer.segmentation_predictor import Segmenter
    from fastpose.models.checkpoint_formats import weights_file

    weights = weights_file(args.weights)
    named, test = _from_config(_config(args), weights) if args.config else ({"model": weights}, {})
    if args.scales is not None:
        test["scales"] = args.scales
    if args.window is not None:
        test["window"] = tuple(args.window)
    test["flip_test"] = test.get("flip_test", True) and not args.no_flip
    segmenter = Segmenter(
        **named,
        **test,
        device=args.device,
        amp=args.amp,
        upright=not args.no_exif,
        workers=getattr(args, "workers", "auto"),
    )
    classes = segmenter.classes
    print(
        f"{segmenter.meta.model}, {classes.num_classes} classes of {classes.name}, "
        f"{segmenter.meta.channel_order}, {segmenter.device}"
    )
    return segmenter


def _from_config(config: Any, weights: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of `Segmenter` that name the network, and those of the test."""
    from fastpose.models import read_meta

    auto, val = config.model, config.val
    named = {
        "model": auto.name,
        "weights": weights,
        "input_size": tuple(config.data.input_size),
        "channel_order": None if auto.channel_order == "auto" else auto.channel_order,
        "align_corners": None if auto.align_corners == "auto" else auto.align_corners,
    }
    if getattr(read_meta(weights), "classes", None) is None:
        named["classes"] = _data_classes(config.data)
    test: dict[str, Any] = {
        key: getattr(val, key) for key in ("scales", "stride_rate", "average", "flip_test")
    }
    if val.window is not None:
        test["window"] = tuple(val.window)
    return named, test


def _data_classes(data: Any) -> Any:
    """The classes that a configuration's data names; None for VOC's layout without a classes.json of its own,
    whose networks are told by their number of classes."""
    from fastpose.classes import BODY_PARTS, PERSON_2
    from fastpose.data.voc import CLASSES_FILE, folder_classes, voc_folder
    from fastpose.errors import DataError

    if data.format != "voc":
        return {"coco": PERSON_2, "figures": BODY_PARTS}.get(data.format)
    try:
        folder = voc_folder(Path(data.root)) if data.root else None
    except DataError:  # trained where the data was
        folder = None
    return folder_classes(folder) if folder and (folder / CLASSES_FILE).is_file() else None
