"""What a run is: the fields of a configuration file, with their meanings and defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fastpose.data.augment import Augmentation
from fastpose.data.segmentation_augment import SegmentationAugmentation

Loss = Literal["auto", "mse", "keypoint_mse", "ohkm", "set", "kl", "ce", "ohem", "ce_dice", "ce_dice_seed"]

Refinement = Literal["none", "quarter", "dark", "quarter_each", "dark_udp", "auto"]


@dataclass
class ModelConfig:
    """Which network: a name of `fastpose.models.list_models()`, and where its weights start from."""

    name: str = "hrnet_w32"  # the network
    init: Literal["official", "kaiming"] = "official"  # where no weights are given; kaiming learns faster
    weights: str | None = None  # official .pth, mmpose .pth, ImageNet backbone, or .safetensors
    backbone: str | None = None  # weights of another network, whose backbone this one starts from
    channel_order: Literal["auto", "rgb", "bgr"] = "auto"  # auto: what the weights say, else the network's
    align_corners: bool | Literal["auto"] = "auto"  # of segmentation networks; auto: as channel_order
    num_modules: int | Literal["auto"] = "auto"  # residuals at each place of an hourglass; auto: likewise


@dataclass
class FiguresConfig:
    """The embedded data set of rendered figures (`data.format: figures`)."""

    train_count: int = 4000  # pictures
    val_count: int = 100  # pictures held out
    image_size: list[int] = field(default_factory=lambda: [256, 256])  # width, height
    people: list[int] = field(default_factory=lambda: [1, 3])  # fewest and most in a picture
    occluders: bool = True  # things in front of people
    truncation: float = 0.12  # share of persons cut by the border
    lying: float = 0.04  # share of persons who lie
    facing: list[float] = field(default_factory=lambda: [0.55, 0.25, 0.2])  # front, side, back


@dataclass
class DataConfig:
    """Where pictures and annotations are and how a person is cut out of them."""

    format: Literal["coco", "mpii", "voc", "figures"] = "coco"  # voc: of segmentation; figures are rendered
    root: str | None = None  # a folder in the official layout of the format
    train_split: str = "train2017"  # names the annotation file and the folder of pictures
    val_split: str = "val2017"  # the same for evaluation
    train_annotations: str | None = None  # these four override the layout; paths may start at data.root
    train_images: str | None = None  # folder or zip
    val_annotations: str | None = None  # json
    val_images: str | None = None  # folder or zip
    input_size: list[int] = field(default_factory=lambda: [192, 256])  # width, height
    codec: Literal["auto", "msra", "udp", "simcc"] = "auto"  # auto: what the weights say, else the network's
    sigma: float = 2.0  # of the target Gaussian, in heatmap pixels
    target: Literal["rounded", "unbiased"] = "rounded"  # of msra: centre in a whole cell, or exact (DARK)
    split_ratio: float | Literal["auto"] = "auto"  # of simcc: bins a pixel; auto: as codec
    simcc_sigma: list[float] | None = field(default_factory=lambda: [6.0, 6.0])  # bins; null: one bin
    simcc_smoothing: float = 0.0  # of simcc's one bin: the part that goes to all others
    flip_pairs: list[list[int]] | None = None  # override for custom keypoints
    sigmas: list[float] | None = None  # OKS sigmas, override for custom keypoints
    joint_weights: bool = False  # official USE_DIFFERENT_JOINTS_WEIGHT
    on_bad: Literal["skip", "stop"] = "skip"  # samples that cannot be used
    cache_mb: int = 0  # decoded pictures kept, per worker
    group_images: bool = False  # persons of a picture together, each picture decoded once a batch
    crop_cache: str | None = None  # folder of `fastpose prepare` to train from, instead of whole pictures
    warp: Literal["auto", "cpu", "gpu"] = "cpu"  # who cuts the crops, with the same bytes: workers or the GPU
    workers: int | Literal["auto"] = "auto"  # loader processes; 0 loads in the training process
    figures: FiguresConfig = field(default_factory=FiguresConfig)


@dataclass
class TrainConfig:
    """The optimisation."""

    epochs: int = 210  # passes over the data
    batch_size: int = 128  # samples a step, of all processes together
    batch_per: Literal["step", "process"] = "step"  # process: batch_size samples in each of them
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"  # of lr with the processes, for batch_per=process
    sync_bn: bool = False  # BatchNorm over the samples of all processes (CUDA)
    bucket_mb: float = 25.0  # gradients that travel together between processes
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"  # the update rule
    momentum: float = 0.0  # of sgd and rmsprop
    lr: float = 1e-3  # learning rate at the start
    backbone_lr: float | None = None  # that of the backbone, where it is another
    weight_decay: float = 0.0  # the official 1e-4 never reaches its Adam
    milestones: list[int] = field(default_factory=lambda: [170, 200])  # epochs after which lr drops
    gamma: float = 0.1  # factor of each drop
    schedule: Literal["step", "cosine", "poly"] = "step"  # step, or cosine or poly to zero
    poly_power: float = 0.9  # of poly: (1 - progress) to this power
    warmup_steps: int = 0  # steps of linear rise at the start
    loss: Loss = "auto"  # auto: that of the network, mse, set, kl or ce; ohkm: the hardest joints
    ohkm_topk: int = 8  # joints that ohkm keeps
    class_weights: list[float] | None = None  # of segmentation losses, one a class
    ohem_threshold: float = 0.9  # ohem: pixels whose class has less probability count
    ohem_keep: int = 131072  # ohem: and at least so many of batch_size samples, or their share
    visible_only: bool = False  # set: only visible joints are matched (official: all)
    amp: Literal["auto", "none", "bf16", "fp16"] = "auto"  # auto: bf16 where the device multiplies it
    channels_last: bool = True  # memory layout
    compile: bool | Literal["default", "max-autotune"] = False  # run the network through torch.compile
    graph: bool = True  # on a GPU, the whole step as one CUDA graph
    ema: float = 0.0  # decay of an average of the weights, then validated and saved as best; 0 for none
    clip_grad: float = 0.0  # largest norm of the gradient, 0 for none
    max_bad_steps: int = 10  # steps in a row without a finite gradient that end a run, 0 for never
    save_steps: int = 0  # extra checkpoints within an epoch, 0 for one at its end only
    keep: int = 2  # training states kept, besides that of the best epoch
    keep_every: int = 0  # and those of every so many epochs, 0 for none
    async_save: bool = True  # write training states while the training goes on
    on_save_error: Literal["stop", "continue"] = "stop"  # what a full disk does to the run


@dataclass
class ValConfig:
    """The evaluation; defaults are the official test settings."""

    every: int = 1  # epochs between evaluations
    batch_size: int = 64  # persons at a time
    amp: Literal["none", "auto", "bf16", "fp16"] = "none"  # float32 agrees with the official figures best
    flip_test: bool = True  # average in the mirrored picture
    shift_heatmap: bool | Literal["auto"] = "auto"  # one-pixel shift of mirrored heatmaps; auto: as refine
    window: list[int] | None = None  # width, height of a segmentation network's sliding window; null: whole
    stride_rate: float = 0.6666666666666666  # of the window: how far it slides
    scales: list[float] = field(default_factory=lambda: [1.0])  # of a picture, averaged, for segmentation
    average: Literal["softmax", "exp"] = "softmax"  # over scales and windows; exp: of exp(logits), official
    refine: Refinement = "auto"  # how a peak becomes a point; auto: as the weights say, else the codec
    blur_kernel: int | Literal["auto"] = "auto"  # odd, of dark(_udp); auto: as refine, else by data.sigma
    cell_offset: float | Literal["auto"] = "auto"  # cells added to a peak in x and y; auto: as refine
    background: bool | Literal["auto"] = "auto"  # of queries: no keypoint is in the softmax; auto: as refine
    boxes: Literal["gt", "detector"] = "gt"  # annotated boxes or a detector's
    detections: str | None = None  # json of detector boxes; the path may start at data.root
    score_threshold: float = 0.0  # least score of a detector box
    nms: Literal["hard", "soft", "none"] = "hard"  # OKS-NMS: hard, soft or none
    oks_threshold: float = 0.9  # of OKS-NMS
    in_vis_threshold: float = 0.2  # least joint score that counts in a person's score


@dataclass
class RunConfig:
    """Where a run lives and on what it runs."""

    dir: str = "runs"  # folder of all runs
    name: str | None = None  # default: the configuration's name
    seed: int = 0  # of weights, order and augmentation
    deterministic: bool = False  # the same bits in every run on a GPU too, slower
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    patience: float = 30.0  # seconds without a sign of life from a process until the run ends
    threads: int = 0  # of torch on the CPU, 0 for its own choice
    pictures_every: int = 10  # epochs between sheets of predictions, 0 for never
    tensorboard: bool = True  # write TensorBoard events, where it is installed


@dataclass
class Config:
    """Everything; `fastpose train FILE key=value` reads it and saves it, resolved, in the run folder."""

    name: str = "run"  # of the configuration
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: Augmentation = field(default_factory=Augmentation)
    segmentation: SegmentationAugmentation = field(default_factory=SegmentationAugmentation)
    train: TrainConfig = field(default_factory=TrainConfig)
    val: ValConfig = field(default_factory=ValConfig)
    run: RunConfig = field(default_factory=RunConfig)
