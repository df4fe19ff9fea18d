"""Readers of annotations, and samples made from them."""

from fastpose.data.augment import Augmentation
from fastpose.data.coco import coco_layout, read_coco, read_detections
from fastpose.data.dataset import CropDataset
from fastpose.data.images import open_images, read_image
from fastpose.data.loader import make_loader
from fastpose.data.mpii import read_mpii
from fastpose.data.persons import ImageSource, PersonTable
from fastpose.data.sampler import EpochSampler
from fastpose.data.segmentation import SegmentationTable
from fastpose.data.segmentation_augment import SegmentationAugmentation
from fastpose.data.segmentation_coco import read_coco_masks
from fastpose.data.segmentation_dataset import SegmentationDataset
from fastpose.data.voc import read_voc, write_voc

__all__ = [
    "Augmentation",
    "CropDataset",
    "EpochSampler",
    "ImageSource",
    "PersonTable",
    "SegmentationAugmentation",
    "SegmentationDataset",
    "SegmentationTable",
    "coco_layout",
    "make_loader",
    "open_images",
    "read_coco",
    "read_coco_masks",
    "read_detections",
    "read_image",
    "read_mpii",
    "read_voc",
    "write_voc",
]
