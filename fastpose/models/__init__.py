"""Networks under their official parameter names, and their weights."""

from fastpose.models.hrnet import HRNet, HRNetConfig, hrnet_w18_small, hrnet_w32, hrnet_w48
from fastpose.models.meta import Meta, ModelMeta, Network, PoseModel, SegmentationMeta, SegmentationModel
from fastpose.models.registry import create_model, list_models
from fastpose.models.weights import create_trained, load_model, load_weights, read_meta, save_weights

__all__ = [
    "HRNet",
    "HRNetConfig",
    "Meta",
    "ModelMeta",
    "Network",
    "PoseModel",
    "SegmentationMeta",
    "SegmentationModel",
    "create_model",
    "create_trained",
    "hrnet_w18_small",
    "hrnet_w32",
    "hrnet_w48",
    "list_models",
    "load_model",
    "load_weights",
    "read_meta",
    "save_weights",
]
