"""Networks under their official parameter names, and their weights."""

from fastpose.models.hourglass import Hourglass, HourglassConfig
from fastpose.models.hourglasses import (
    hourglass2,
    hourglass2_mobile,
    hourglass2_paper,
    hourglass2_post,
    hourglass8,
    hourglass8_mobile,
    hourglass8_paper,
    hourglass8_post,
)
from fastpose.models.hrnet import HRNet, HRNetConfig, hrnet_w18_small, hrnet_w32, hrnet_w48
from fastpose.models.hrnet_fullres import HRNetFullRes, hrnet_fullres_w32
from fastpose.models.hrnet_seg import (
    HRNetSeg,
    HRNetSegConfig,
    hrnet_seg_w18,
    hrnet_seg_w18_small_v1,
    hrnet_seg_w18_small_v2,
    hrnet_seg_w30,
    hrnet_seg_w32,
    hrnet_seg_w48,
)
from fastpose.models.meta import Meta, ModelMeta, SegmentationMeta
from fastpose.models.network import Network, PoseModel, SegmentationModel
from fastpose.models.pose_resnet import PoseResNet, pose_resnet50, pose_resnet101, pose_resnet152
from fastpose.models.prtr import (
    PRTR,
    prtr_hrnet_w18_small,
    prtr_hrnet_w32,
    prtr_hrnet_w48,
    prtr_resnet50,
    prtr_resnet101,
    prtr_resnet152,
)
from fastpose.models.registry import create_model, list_models
from fastpose.models.simcc import (
    SimCCHRNet,
    SimCCPoseResNet,
    simcc_hrnet_w32,
    simcc_hrnet_w48,
    simcc_resnet50,
)
from fastpose.models.transfer import load_backbone
from fastpose.models.weights import create_trained, load_model, load_weights, read_meta, save_weights

__all__ = [
    "PRTR",
    "HRNet",
    "HRNetConfig",
    "HRNetFullRes",
    "HRNetSeg",
    "HRNetSegConfig",
    "Hourglass",
    "HourglassConfig",
    "Meta",
    "ModelMeta",
    "Network",
    "PoseModel",
    "PoseResNet",
    "SegmentationMeta",
    "SegmentationModel",
    "SimCCHRNet",
    "SimCCPoseResNet",
    "create_model",
    "create_trained",
    "hourglass2",
    "hourglass2_mobile",
    "hourglass2_paper",
    "hourglass2_post",
    "hourglass8",
    "hourglass8_mobile",
    "hourglass8_paper",
    "hourglass8_post",
    "hrnet_fullres_w32",
    "hrnet_seg_w18",
    "hrnet_seg_w18_small_v1",
    "hrnet_seg_w18_small_v2",
    "hrnet_seg_w30",
    "hrnet_seg_w32",
    "hrnet_seg_w48",
    "hrnet_w18_small",
    "hrnet_w32",
    "hrnet_w48",
    "list_models",
    "load_backbone",
    "load_model",
    "load_weights",
    "pose_resnet50",
    "pose_resnet101",
    "pose_resnet152",
    "prtr_hrnet_w18_small",
    "prtr_hrnet_w32",
    "prtr_hrnet_w48",
    "prtr_resnet50",
    "prtr_resnet101",
    "prtr_resnet152",
    "read_meta",
    "save_weights",
    "simcc_hrnet_w32",
    "simcc_hrnet_w48",
    "simcc_resnet50",
]
