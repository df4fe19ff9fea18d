"""What the papers and official repositories say of each network, and what was verified here."""

from __future__ import annotations

from dataclasses import dataclass

COCO, MPII, MPII_OWN, MPII_PLAIN = "COCO", "MPII", "MPII, own mean", "MPII, plain mean"
DARK, UDP = "COCO, DARK", "COCO, UDP"
CITYSCAPES, CONTEXT, LIP = "Cityscapes", "PASCAL-Context", "LIP"
VOC_KERAS = "VOC 2012, Keras"
CONVENTIONS = {
    COCO: "val2017 AP with the detector's boxes of 56.4 AP and flip test",
    DARK: "as COCO, trained and decoded as mmpose does with DARK",
    UDP: "as COCO, trained and decoded as mmpose does with UDP",
    MPII: "val PCKh@0.5, the mean weighted over 14 joints, with flip test",
    MPII_OWN: "val PCKh@0.5 pooled over all 16 joints, with a stricter comparison and a split of its own",
    MPII_PLAIN: "val PCKh@0.5, the mean over 14 joints that counts each alike",
    CITYSCAPES: "val mIoU of whole pictures at one scale",
    CONTEXT: "val mIoU of 59 classes, several scales and flip test; no configuration here",
    LIP: "val mIoU of 20 classes; no configuration here",
    VOC_KERAS: "val mIoU of bubbliiiing/hrnet-keras, whose network enlarges by nearest pixels",
}
"""What a score of each name is; scores of two conventions cannot be compared."""


@dataclass(frozen=True)
class Score:
    """`value` at `size` (width x height), by a name of CONVENTIONS."""

    convention: str
    size: str
    value: str


@dataclass(frozen=True)
class Origin:
    """The implementation that a network follows; `verified` says how far, and how that was shown here."""

    repository: str
    licence: str
    scores: tuple[Score, ...]
    verified: str


HRNET = "leoxiaobin/deep-high-resolution-net.pytorch"
SB = "microsoft/human-pose-estimation.pytorch"
HOURGLASS = "princeton-vl/pytorch_stacked_hourglass"
PYTORCH_POSE = "bearpaw/pytorch-pose"
PRTR = "mlpc-ucsd/PRTR"
SEG = "HRNet/HRNet-Semantic-Segmentation"
MMPOSE = "open-mmlab/mmpose"
KERAS_HOURGLASS = "yuanyuanli85/Stacked_Hourglass_Network_Keras"
TF_HRNET = "VXallset/deep-high-resolution-net.TensorFlow"

_NAMES = "names, shapes and parameter count"
_SIZE = "numbers of tensors and parameters; names by the golden of `hrnet_seg_w48`"
_COUNTS = "numbers of tensors and parameters, not names: the original was not read"
_LAYERS = "layers as described, names of tensors are ours; shapes, gradients and training"
_GOLDEN = "golden numbers of the official code in float64: outputs 1e-6, loss 1e-9, every gradient norm 1e-6"


def _coco(low: str, high: str) -> tuple[Score, ...]:
    return Score(COCO, "192x256", low), Score(COCO, "288x384", high)


def _mpii(size: str, value: str) -> Score:
    return Score(MPII, size, value)


PUBLISHED: dict[str, Origin] = {
    "hrnet_w32": Origin(
        HRNET,
        "MIT",
        (
            *_coco("74.4", "75.8"), Score(DARK, "192x256", "75.7"), Score(UDP, "192x256", "76.2"),
            _mpii("256x256", "90.3"),
        ),
        _GOLDEN,
    ),
    "hrnet_w48": Origin(
        HRNET,
        "MIT",
        (*_coco("75.1", "76.3"), Score(DARK, "288x384", "77.2"), Score(UDP, "288x384", "77.3")),
        _NAMES,
    ),
    "pose_resnet50": Origin(
        SB, "MIT", (*_coco("70.4", "72.2"), _mpii("256x256", "88.5"), _mpii("384x384", "89.1")), _GOLDEN
    ),
    "pose_resnet101": Origin(
        SB, "MIT", (*_coco("71.4", "73.6"), _mpii("256x256", "89.1"), _mpii("384x384", "90.0")), _NAMES
    ),
    "pose_resnet152": Origin(
        SB, "MIT", (*_coco("72.0", "74.3"), _mpii("256x256", "89.6"), _mpii("384x384", "90.2")), _NAMES
    ),
    "hourglass2": Origin(HOURGLASS, "BSD-3-Clause", (Score(MPII_OWN, "256x256", "88.3"),), _GOLDEN),
    "hourglass8": Origin(HOURGLASS, "BSD-3-Clause", (Score(MPII_OWN, "256x256", "90.2"),), _NAMES),
    "hourglass2_paper": Origin(PYTORCH_POSE, "GPL-3.0", (Score(MPII_PLAIN, "256x256", "86.95"),), _COUNTS),
    "hourglass8_paper": Origin(PYTORCH_POSE, "GPL-3.0", (Score(MPII_PLAIN, "256x256", "88.78"),), _COUNTS),
    **{
        f"hourglass{stacks}_{kind}": Origin(KERAS_HOURGLASS, "none stated", (), _LAYERS)
        for stacks in (2, 8)
        for kind in ("post", "mobile")
    },
    "hrnet_fullres_w32": Origin(TF_HRNET, "MIT", (), _LAYERS),
    "prtr_resnet50": Origin(
        PRTR,
        "Apache-2.0",
        (
            Score(COCO, "288x384", "68.2"), Score(COCO, "384x512", "71.0"),
            _mpii("256x256", "82.9"), _mpii("384x384", "86.3"), _mpii("512x512", "88.5"),
        ),
        _NAMES,
    ),
    "prtr_resnet101": Origin(
        PRTR,
        "Apache-2.0",
        (
            Score(COCO, "288x384", "70.1"), Score(COCO, "384x512", "72.0"),
            _mpii("256x256", "85.0"), _mpii("384x384", "87.9"), _mpii("512x512", "89.4"),
        ),
        _NAMES,
    ),
    "prtr_resnet152": Origin(PRTR, "Apache-2.0", (), "the official code cannot build it; runs here"),
    "prtr_hrnet_w32": Origin(
        PRTR,
        "Apache-2.0",
        (
            Score(COCO, "288x384", "73.1"), Score(COCO, "384x512", "73.3"),
            _mpii("256x256", "88.6"), _mpii("384x384", "89.5"),
        ),
        _GOLDEN,
    ),
    "simcc_resnet50": Origin(MMPOSE, "Apache-2.0", (Score(COCO, "288x384", "73.5"),), "names and shapes"),
    "simcc_hrnet_w48": Origin(MMPOSE, "Apache-2.0", (Score(COCO, "192x256", "74.6"),), "names and shapes"),
    "hrnet_seg_w18_small_v1": Origin(
        SEG, "MIT", (Score(CITYSCAPES, "2048x1024", "70.3"),), _NAMES
    ),
    "hrnet_seg_w18_small_v2": Origin(
        SEG, "MIT", (Score(CITYSCAPES, "2048x1024", "76.2"),), _NAMES
    ),
    "hrnet_seg_w48": Origin(
        SEG,
        "MIT",
        (
            Score(CITYSCAPES, "2048x1024", "80.9 (OHEM 81.2)"),
            Score(CONTEXT, "520x520", "54.1"),
            Score(LIP, "473x473", "55.8 to 56.0"),
        ),
        _GOLDEN,
    ),
    "hrnet_seg_w18": Origin(SEG, "MIT", (Score(VOC_KERAS, "480x480", "72.53"),), _SIZE),
    "hrnet_seg_w30": Origin(SEG, "MIT", (), _SIZE),
    "hrnet_seg_w32": Origin(SEG, "MIT", (Score(VOC_KERAS, "480x480", "74.56"),), _SIZE),
}  # fmt: skip
"""By name; networks that are not here have no published original of theirs."""
