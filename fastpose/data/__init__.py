"""Readers of annotations, and samples made from them."""

from fastpose.data.augment import Augmentation
from fastpose.data.coco import coco_layout, read_coco, read_detections
from fastpose.data.dataset import CropDataset
from fastpose.data.images import open_images, read_image
from fastpose.data.loader import EpochSampler, make_loader
from fastpose.data.mpii import read_mpii
from fastpose.data.persons import ImageSource, PersonTable

__all__ = [
    "Augmentation",
    "CropDataset",
    "EpochSampler",
    "ImageSource",
    "PersonTable",
    "coco_layout",
    "make_loader",
    "open_images",
    "read_coco",
    "read_detections",
    "read_image",
    "read_mpii",
]
