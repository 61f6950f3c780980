"""Every key that has an effect here: its default, what its value must be, and what it means.

The method's defaults are the released configuration of the paper (arXiv 2409.18543), made for 40,000
iterations at 640 pixels; configurations for shorter runs or smaller images scale the constants
that say "iterations" or "pixels". What fits the paper's cameras alone (sizes of images and crops, rows
without labels, classes that do not move) stands in the configurations of its experiments.

A part of one's own brings its own keys along::

    KEYS["MODEL.MINE.WIDTH"] = Key("MODEL.MINE.WIDTH", 64, whole(1), "Channels of my decoder.")
"""

import copy
from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.projects.deeplab import add_deeplab_config

from ..evaluation.selection import SCORES
from .method_keys import METHOD_KEYS, METHOD_SECTIONS
from .rules import (
    ABOVE_0,
    BELOW_1,
    COUNTS,
    DATASETS,
    DEVIATIONS,
    DEVICE,
    INTENSITIES,
    MEANS,
    NAME,
    NOT_BELOW_0,
    OPTIONAL,
    PART,
    RISING,
    SHARE,
    SIDES,
    SIZE,
    STAGES,
    SWITCH,
    TEXT,
    THEIRS,
    TWO_BELOW_1,
    WEIGHTS,
    Key,
    OneOf,
    Rule,
    whole,
)


def _meta_architectures() -> Iterator[str]:
    """This project's, and the user's own; Detectron2's are trained otherwise."""
    return (n for n, part in META_ARCH_REGISTRY if not part.__module__.startswith("detectron2."))


def _decoders() -> Iterator[str]:
    """This project's, the user's own, and those of Detectron2 that make class scores of features."""
    names = ("SemSegFPNHead", "DeepLabV3PlusHead", "DeepLabV3Head")
    return (
        name
        for name, part in SEM_SEG_HEADS_REGISTRY
        if name in names or not part.__module__.startswith("detectron2.")
    )


_DATA = (
    Key("DATASETS.FILE", "", TEXT,
        "A data file (YAML): images and labels of one's own. It decides DATASETS.TRAIN, TARGET and TEST and "
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES, where they are not given beside it."),
    Key("DATASETS.TARGET", (), DATASETS,
        "Unlabeled target data sets. Only their images are ever opened."),
    Key("DATASETS.HELD_OUT", 0, Rule("0, or a whole number from 2 on", lambda v: v == 0 or v > 1),
        "Of the source's images every so manyth is kept out of training, for "
        "tools/choose_class_balance.py; 0: none."),
    Key("DATASETS.TEST", THEIRS, DATASETS,
        "Labeled data sets to evaluate on."),
    Key("DATASETS.TRAIN", THEIRS, DATASETS,
        "Labeled source data sets."),
    Key("DATASETS.TRAIN_WEIGHTS", (), WEIGHTS,
        "How often each of several source data sets is drawn, as shares of their sum; (): as many images as "
        "each has."),
    Key("DATASETS.TARGET_WEIGHTS", (), WEIGHTS, "The same of several target data sets."),
    Key("INPUT.FORMAT", "RGB", OneOf(("RGB", "BGR")),
        "Order of the channels that the network takes."),
    Key("INPUT.HIGH_BIT_DEPTH", "percentiles", OneOf(("percentiles", "full_range")),
        'Images of more than 8 bits: "percentiles", the data set\'s values between its percentiles 0.1 '
        'and 99.9 become 0 to 255, since cameras use 10, 12 or 14 of 16 bits; or "full_range", 0 to '
        '65535. The source has a range of its own; the target\'s is kept in the checkpoints and is that of '
        'tests and predictions.'),
    Key("INPUT.INTENSITIES", (), INTENSITIES,
        "The values that become 0 and 255 in all images of more than 8 bits; (): as INPUT.HIGH_BIT_DEPTH "
        "says, or what a trained model was trained with."),
    Key("INPUT.MIN_SIZE_TRAIN", (512,), SIDES,
        "Shortest side of a resized source image, pixels; of several, one is drawn for each image."),
    Key("INPUT.MAX_SIZE_TRAIN", 2048, whole(1), "Longest side of a resized source image, pixels."),
    Key("INPUT.MIN_SIZE_TEST", 512, whole(0),
        "Shortest side of a resized test image, pixels; 0: images stay as they are."),
    Key("INPUT.MAX_SIZE_TEST", 2048, whole(1), "Longest side of a resized test image, pixels."),
    Key("INPUT.RESIZING", "antialiased", OneOf(("antialiased", "bilinear")),
        'How images are resized, in training and evaluation: "antialiased" (PIL), or "bilinear" of four '
        'pixels alone (OpenCV), as published (the paper\'s experiments).'),
    Key("INPUT.MIN_SIZE_TRAIN_SAMPLING", THEIRS, OneOf(("choice", "range")),
        '"choice" of the sizes of INPUT.MIN_SIZE_TRAIN, or "range" between two of them.'),
    Key("INPUT.RANDOM_FLIP", THEIRS, OneOf(("none", "horizontal", "vertical")),
        "Of source and target images."),
    Key("MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53], MEANS,
        "Mean of each channel, of images in [0, 255]: ImageNet's."),
    Key("MODEL.PIXEL_STD", [58.395, 57.12, 57.375], DEVIATIONS,
        "Standard deviation of each channel, likewise."),
    Key("INPUT.CROP.SIZE", [512, 512], SIZE,
        "(height, width) of the source crop and of the ambiguity-guided target crop, pixels."),
    Key("INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 0.75, PART,
        "A source crop in which one class fills more than this share is redrawn."),
    Key("INPUT.TARGET.MIN_SIZE", 512, whole(0),
        "Shortest side of a resized target image, pixels; 0: images stay as they are. The whole image is "
        "loaded; the crop is chosen in the training step, from the pseudo-label."),
    Key("INPUT.TARGET.MAX_SIZE", 2048, whole(1), "Longest side of a resized target image, pixels."),
    Key("DATALOADER.CACHE", "", TEXT,
        "Folder that keeps source and target images and source labels as they are after resizing, "
        "uncompressed, for the next time they are drawn (docs/performance.md); '': none. Target images that "
        "the crop does not fit into are not kept."),
    Key("DATALOADER.UNREADABLE", "error", OneOf(("error", "skip")),
        'An image or label that can\'t be read while training is an "error", or "skip": another one is '
        'drawn instead, and how many were left out is logged and in the metrics (data/unreadable).'),
    Key("DATALOADER.MAX_UNREADABLE", 0.05, SHARE,
        '"skip" ends with an error where more than this share of a data set\'s images is left out by one '
        'process. One image always may be.'),
    Key("DATALOADER.CHECK_SAMPLE", 32, whole(0),
        "Images of each data set that are read before training, evenly spaced over its list. Headers of "
        "all are read; pppc check DATA --read reads all images."),
    Key("DATALOADER.NUM_WORKERS", THEIRS, whole(0), "Loader processes of each training process; 0: none."),
    Key("DATALOADER.RARE_CLASS_SAMPLING.ENABLED", True, SWITCH,
        "Draw source images by their rare classes, not all alike."),
    Key("DATALOADER.RARE_CLASS_SAMPLING.TEMPERATURE", 0.01, ABOVE_0,
        "Temperature of the softmax over (1 - class frequency): lower draws rare classes more often."),
    Key("DATALOADER.RARE_CLASS_SAMPLING.MIN_AREA", 0.0015, SHARE,
        "An image counts for a class when the class covers more than this share of it. The published "
        "3,000 pixels are 0.0015 of a 1914x1052 label."),
    Key("DATALOADER.RARE_CLASS_SAMPLING.MIN_PIXELS", 0, whole(0),
        "The same in pixels, of labels and of crops as they are, as published (the paper's experiments: "
        "3000); 0: MIN_AREA holds, which fits images of any size."),
    Key("DATALOADER.RARE_CLASS_SAMPLING.MIN_CROP_RATIO", 0.5, SHARE,
        "The crop is redrawn until it holds more than this share of those pixels, ten times at most."),
)  # fmt: skip

_MODEL = (
    Key("MODEL.META_ARCHITECTURE", "PPPCSegmentor", OneOf(_meta_architectures),
        "Student, teacher and prototypes; a model of one's own may take its place."),
    Key("MODEL.DEVICE", "cuda" if torch.cuda.is_available() else "cpu", DEVICE,
        "Where the networks run, without it on a GPU if there is one; with several processes each has "
        "its own GPU."),
    Key("MODEL.WEIGHTS", "", TEXT,
        "File or address of the weights to start from or to evaluate (docs/weights.md)."),
    Key("MODEL.WEIGHTS_OTHER_CLASSES", False, SWITCH,
        "MODEL.WEIGHTS is a model of other classes: training starts from all of it but the classifier. "
        "Where the file names its classes, the classifier's rows of equal names are taken over."),
    Key("MODEL.SYNC_BATCH_NORM", False, SWITCH,
        "BatchNorm uses the statistics of all processes' batches (CUDA)."),
    Key("MODEL.RECOMPUTE", "none", OneOf(("none", "encoder")),
        '"encoder": timm\'s encoder computes its stages again in the backward pass instead of keeping '
        'what is in them, for less memory (docs/performance.md). Gradients are the same; running statistics '
        'of BatchNorm see each batch twice.'),
    Key("MODEL.COMPILE", "", OneOf(("", "default", "reduce-overhead", "max-autotune")),
        "Train with student and teacher compiled by torch.compile in this mode; \"reduce-overhead\" has CUDA "
        "graphs. It needs a C++ compiler, and minutes to begin, again for images of another size; '': no."),
    Key("MODEL.BACKBONE.NAME", "build_timm_backbone", OneOf(lambda: (name for name, _ in BACKBONE_REGISTRY)),
        "What builds the encoder."),
    Key("MODEL.TIMM.NAME", "mit_b5", NAME,
        "The encoder: any timm model that can return feature maps, and mit_b0 to mit_b5 (SegFormer); of "
        "build_vit_backbone a plain vision transformer, such as vit_small_patch14_dinov2."),
    Key("MODEL.TIMM.PRETRAINED", False, SWITCH,
        "Download timm's own weights for this model (needs network), where MODEL.WEIGHTS names no file."),
    Key("MODEL.TIMM.OUTPUT_STRIDE", 32, Rule("32, 16 or 8", lambda value: value in (32, 16, 8)),
        "Ratio of the input size to the size of the coarsest feature map: 32, 16 or 8."),
    Key("MODEL.TIMM.DROP_PATH_RATE", 0.1, BELOW_1,
        "Stochastic depth: the last block's probability of being skipped, linear over the depth."),
    Key("MODEL.VIT.CHANNELS", 256, whole(1),
        "Of build_vit_backbone, for plain vision transformers: channels of each of its four maps."),
    Key("MODEL.VIT.FROZEN", 0, whole(-1),
        "Of build_vit_backbone: so many of the first blocks, and what is before them, are not trained; -1: "
        "nothing of the transformer is."),
    Key("MODEL.VIT.LR_DECAY", 1.0, ABOVE_0,
        "Of build_vit_backbone: each block learns by this factor slower than the next one (1: all alike)."),
    Key("MODEL.SEM_SEG_HEAD.NAME", "DAFormerHead", OneOf(_decoders),
        "The decoder: DAFormerHead, SegFormerHead, ConvSegFormerHead (mmsegmentation's SegFormer) or "
        "SeparableDeepLabV3PlusHead."),
    Key("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["stage1", "stage2", "stage3", "stage4"], STAGES,
        'The encoder\'s stages that the decoder takes, "stage1" the finest.'),
    Key("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 19, whole(2, 255),
        "Classes of the model: those of the target."),
    Key("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 255, whole(0, 255), "Label of pixels without a class."),
    Key("MODEL.SEM_SEG_HEAD.CONVS_DIM", 256, whole(1), "Channels of the decoder."),
    Key("MODEL.SEM_SEG_HEAD.NORM", "BN",
        Rule("'BN', 'GN', 'LN', 'FrozenBN' or '' (for BN of all processes MODEL.SYNC_BATCH_NORM True)",
             lambda value: value in ("BN", "GN", "LN", "FrozenBN", "")),
        "Normalization after the decoder's convolutions; '': none."),
    Key("MODEL.SEM_SEG_HEAD.ASPP_DILATIONS", [1, 6, 12, 18], COUNTS,
        "Dilations of the spatial pyramid's branches (DAFormerHead, SeparableDeepLabV3PlusHead)."),
    Key("MODEL.SEM_SEG_HEAD.DROPOUT", 0.1, BELOW_1,
        "Probability that a channel before the classifier is dropped."),
    Key("MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", THEIRS, COUNTS,
        "Channels to which DeepLabV3+ reduces the finer stage."),
    Key("MODEL.PROBABILISTIC_HEAD.IN_FEATURES", ["stage1", "stage2", "stage3", "stage4"], STAGES,
        "Backbone features, resized to the finest of them and concatenated."),
    Key("MODEL.PROBABILISTIC_HEAD.DIM", 512, whole(1), "Dimensions of the embedding."),
    Key("MODEL.PROBABILISTIC_HEAD.MID_CHANNELS", 256, whole(0),
        "Channels of the mean branch's hidden layers; 0: as many as come in."),
    Key("MODEL.PROBABILISTIC_HEAD.NUM_CONVS", 2, whole(1), "1x1 convolutions of the mean branch."),
    Key("MODEL.PROBABILISTIC_HEAD.VARIANCE_OVER_DIM", False, SWITCH,
        "Divide the variances, which are in (1, e) otherwise (published), by DIM. Means have unit "
        "length, so two of them differ by at most 4 / DIM a dimension, squared: beside variances above 1 "
        "that is little, beside variances near 1 / DIM it tells classes apart, whatever DIM is."),
    Key("MODEL.PROBABILISTIC_HEAD.LEARN_VARIANCE", True, SWITCH,
        "Predict log-variances. False: they are the same everywhere, so that pixels are points, for the "
        "deterministic contrast that the paper compares with."),
)  # fmt: skip

_SOLVER = (
    Key("SOLVER.AMP.TYPE", "bfloat16", OneOf(("bfloat16", "float16")),
        '"bfloat16", or "float16" with scaled losses, for GPUs without bfloat16.'),
    Key("SOLVER.AMP.ENABLED", THEIRS, SWITCH,
        "Run the networks under autocast, in evaluation too (CPU and CUDA); losses, statistics and the "
        "moving average stay in float32."),
    Key("SOLVER.OPTIMIZER", "AdamW", OneOf(("AdamW", "SGD")),
        '"AdamW", or "SGD" (SOLVER.MOMENTUM, SOLVER.NESTEROV).'),
    Key("SOLVER.BETAS", (0.9, 0.999), TWO_BELOW_1,
        "AdamW's shares of the old moving averages, of gradients and of their squares."),
    Key("SOLVER.BASE_LR", 6e-5, ABOVE_0, "Learning rate of the encoder after the warm-up."),
    Key("SOLVER.WEIGHT_DECAY", 0.01, NOT_BELOW_0, "Weight decay of all weights but those below."),
    Key("SOLVER.WEIGHT_DECAY_NORM", 0.0, NOT_BELOW_0,
        "Weight decay of the backbone's normalization layers (0 for MiT, as published)."),
    Key("SOLVER.HEAD_LR_FACTOR", 10.0, NOT_BELOW_0,
        "Learning rate of the decoder and of the embedding's mean, as a multiple of BASE_LR."),
    Key("SOLVER.VARIANCE_LR_FACTOR", 1.0, NOT_BELOW_0,
        "Learning rate of the embedding's variance, as a multiple of BASE_LR."),
    Key("SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR",
        OneOf(("WarmupPolyLR", "WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")),
        "How the learning rate falls, by Detectron2's names."),
    Key("SOLVER.POLY_LR_POWER", 1.0, ABOVE_0,
        "WarmupPolyLR: the learning rate falls as (1 - t / MAX_ITER) to this power."),
    Key("SOLVER.MAX_ITER", 40000, whole(1), "Iterations of the whole run."),
    Key("SOLVER.WARMUP_FACTOR", 1e-6, SHARE, "The warm-up starts at this multiple of the learning rate."),
    Key("SOLVER.WARMUP_ITERS", 1500, whole(0), "Iterations of the warm-up."),
    Key("SOLVER.IMS_PER_BATCH", 2, whole(1), "Source images per iteration, over all processes."),
    Key("SOLVER.TARGET_IMS_PER_BATCH", 2, whole(1), "Target images per iteration, over all processes."),
    Key("SOLVER.CHECKPOINT_PERIOD", 4000, whole(1), "Iterations between two checkpoints."),
    Key("SOLVER.MAX_TO_KEEP", 5, whole(0),
        "Periodic checkpoints that stay, the last ones (MiT-B5: 1.4 GB each); 0: all. The best by labels, "
        "the selected and the final model stay always."),
    Key("SOLVER.BASE_LR_END", THEIRS, NOT_BELOW_0, "The last learning rate of WarmupCosineLR."),
    Key("SOLVER.BIAS_LR_FACTOR", THEIRS, NOT_BELOW_0,
        "Learning rate of biases, as a multiple of the others'."),
    Key("SOLVER.GAMMA", THEIRS, ABOVE_0,
        "Factor of the learning rate at each of SOLVER.STEPS (WarmupMultiStepLR), or at each decay "
        "(WarmupStepWithFixedGammaLR)."),
    Key("SOLVER.MOMENTUM", THEIRS, BELOW_1, "Of SGD."),
    Key("SOLVER.NESTEROV", THEIRS, SWITCH, "SGD with Nesterov's momentum."),
    Key("SOLVER.NUM_DECAYS", THEIRS, whole(1), "Of WarmupStepWithFixedGammaLR."),
    Key("SOLVER.POLY_LR_CONSTANT_ENDING", THEIRS, BELOW_1,
        "WarmupPolyLR stays at this share of the learning rate once it falls below; 0: no."),
    Key("SOLVER.RESCALE_INTERVAL", THEIRS, SWITCH, "The schedule begins after the warm-up, not with it."),
    Key("SOLVER.STEPS", THEIRS, RISING,
        "Iterations at which WarmupMultiStepLR lowers the learning rate."),
    Key("SOLVER.WARMUP_METHOD", THEIRS, OneOf(("linear", "constant")),
        '"linear", or "constant" at SOLVER.WARMUP_FACTOR.'),
    Key("SOLVER.WEIGHT_DECAY_BIAS", THEIRS, OPTIONAL,
        "Weight decay of biases; None: as of weights."),
    Key("TEST.EVAL_PERIOD", 2000, whole(0), "Iterations between two evaluations; 0: at the end alone."),
    Key("TEST.CALIBRATION", "none", OneOf(("none", "source", "vote")),
        "To what a temperature of the class probabilities and a probability of error of each pixel are "
        "fitted, at each evaluation and checkpoint: held-out source images (DATASETS.HELD_OUT), or the vote "
        "of all models so far on target images; predictions have both; 'none': what a checkpoint has is not "
        "used (docs/uncertainty.md)."),
    Key("TEST.EVALUATE_TEACHER", False, SWITCH, "Evaluate the teacher instead of the student."),
    Key("TEST.SELECTION.IMAGES", 16, whole(0),
        "Unlabeled target images, and as many of the source, at which each evaluation looks for label-free "
        "scores and alarms, in about five network passes each; 0: there are none, and no model is selected."),
    Key("TEST.SELECTION.SCORE", "information_maximization", OneOf(SCORES),
        "The label-free score whose best model is model_selected.pth (docs/method.md)."),
    Key("TEST.SELECTION.SOURCE_MODEL", "", TEXT,
        "A source-only model, file or run: alarms compare with its predictions for the target, and it is the "
        "selected one as long as no other is better; '': there is none."),
    Key("TEST.REPORT_IMAGES", 24, whole(0),
        "Images of the test sets, or of the target, that the report at a training's end predicts "
        "(report.html, docs/report.md); 0: there is none."),
    Key("TEST.UNCERTAINTY", False, SWITCH,
        'Measure in evaluation whether the model knows where it errs, and whether its probabilities are what '
        'they say; curves, figures and a table by image go to OUTPUT_DIR/inference. With the contrast each '
        'prediction has "uncertainty" (H, W), the entropy of the classes by the embedding\'s scores with the '
        'prototypes, and "log_variance" (H, W), the embedding\'s mean log-variance.'),
    Key("TEST.WINDOW", 2048, whole(32),
        "Images with a longer side than so many pixels are predicted in overlapping windows of this size, "
        "each resized like an image of its own; evaluation takes whole images."),
    Key("TEST.EXPECTED_RESULTS", THEIRS, Rule("a list of results as Detectron2 takes it"),
        "Results that an evaluation must give, as Detectron2 takes them."),
    Key("SEED", 43, Rule("a whole number from 0 to 4294967295, or -1 to have one drawn",
                         lambda value: -1 <= value < 2**32),
        "Of all random numbers; -1: one is drawn, and recorded."),
    Key("CUDNN_BENCHMARK", THEIRS, SWITCH,
        "Let cuDNN look for the fastest algorithms; for images of few sizes."),
    Key("FLOAT32_PRECISION", THEIRS, OneOf(("", "highest", "high", "medium")),
        "Of matrix products, as torch.set_float32_matmul_precision takes it; '': as PyTorch does."),
    Key("OUTPUT_DIR", THEIRS, NAME, "The run's folder."),
    Key("VERSION", THEIRS, Rule("2", lambda value: value == 2), "Of Detectron2's configurations."),
    Key("VIS_PERIOD", THEIRS, whole(0), "Iterations between two pictures of the training batch; 0: none."),
    Key("TRACKERS", (), Rule("a list of 'wandb', 'mlflow' or both", lambda v: set(v) <= {"wandb", "mlflow"}),
        "Where scalars and the configuration go beside metrics.json and TensorBoard: Weights & Biases or "
        "MLflow, by their own packages and environment variables."),
    Key("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", THEIRS, OneOf(("value", "norm", "full_model")),
        '"value" or "norm" of each parameter\'s gradient, or "full_model", the norm of all gradients '
        'together, which transformers are often trained with.'),
    Key("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", THEIRS, ABOVE_0, "To which gradients are clipped."),
    Key("SOLVER.CLIP_GRADIENTS.ENABLED", THEIRS, SWITCH, "Clip gradients."),
    Key("SOLVER.CLIP_GRADIENTS.NORM_TYPE", THEIRS, ABOVE_0, "P of the norm: 2 is the usual length."),
)  # fmt: skip

KEYS = {key.name: key for key in (*_DATA, *_MODEL, *_SOLVER, *METHOD_KEYS)}
# What some sections are about.
SECTIONS = {
    "DATALOADER.RARE_CLASS_SAMPLING": "Rare-class sampling of source images (DAFormer, arXiv "
    "2111.14887).",
    "MODEL.PROBABILISTIC_HEAD": "Pixel embedding as a Gaussian: mean and log-variance (arXiv "
    "2409.18543).",
    **METHOD_SECTIONS,
}


def add_pppc_config(cfg: CfgNode) -> None:
    """Add PPPC's keys to ``cfg`` in place, and set Detectron2's that PPPC needs otherwise."""
    # DeepLab's project holds the polynomial learning rate and the class-balanced crop.
    add_deeplab_config(cfg)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, "absolute"  # no other kind is known here
    for key in KEYS.values():
        if key.default is not THEIRS:
            section, name = section_of(cfg, key.name)
            section[name] = copy.deepcopy(key.default)


def section_of(cfg: CfgNode, key: str) -> tuple[CfgNode, str]:
    """The section that holds a key such as "SOLVER.MAX_ITER", made if absent, and its name there."""
    *sections, name = key.split(".")
    for section in sections:
        cfg = cfg.setdefault(section, CfgNode())
    return cfg, name


def by_key(node: CfgNode, start: str = "") -> Iterator[tuple[str, object]]:
    """Every key with its sections, such as "SOLVER.MAX_ITER", and its value."""
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from by_key(value, f"{start}{name}.")
        else:
            yield start + name, value
