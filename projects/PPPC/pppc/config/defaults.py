"""Every configuration key that PPPC adds to Detectron2's.

The method's defaults are the released configuration of the paper (arXiv 2409.18543), made for 40,000
iterations at 640 pixels; configurations for shorter runs or smaller images scale the constants
that say "iterations" or "pixels". What fits the paper's cameras alone (sizes of images and crops, rows
without labels, classes that do not move) stands in the configurations of its experiments.

Keys of Detectron2 and its DeepLab that are used with their own meaning and default::

    CUDNN_BENCHMARK       let cuDNN look for the fastest algorithms; for images of few sizes
    DATALOADER.NUM_WORKERS
                          loader processes of each training process; 0: none
    DATASETS.TEST         labeled data sets to evaluate on
    DATASETS.TRAIN        labeled source data sets
    FLOAT32_PRECISION     of matrix products, as torch.set_float32_matmul_precision takes it; '': as
                          PyTorch does
    INPUT.MIN_SIZE_TRAIN_SAMPLING
                          "choice" of the sizes of INPUT.MIN_SIZE_TRAIN, or "range" between two of them
    INPUT.RANDOM_FLIP     of source and target images
    MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS
                          channels to which DeepLabV3+ reduces the finer stage
    OUTPUT_DIR            the run's folder
    SOLVER.AMP.ENABLED    run the networks under autocast, in evaluation too (CPU and CUDA); losses,
                          statistics and the moving average stay in float32
    SOLVER.BASE_LR_END    the last learning rate of WarmupCosineLR
    SOLVER.BIAS_LR_FACTOR
                          learning rate of biases, as a multiple of the others'
    SOLVER.CLIP_GRADIENTS.CLIP_TYPE
                          "value" or "norm" of each parameter's gradient, or "full_model", the norm of
                          all gradients together, which transformers are often trained with
    SOLVER.CLIP_GRADIENTS.CLIP_VALUE
                          to which gradients are clipped
    SOLVER.CLIP_GRADIENTS.ENABLED
                          clip gradients
    SOLVER.CLIP_GRADIENTS.NORM_TYPE
                          p of the norm: 2 is the usual length
    SOLVER.GAMMA          factor of the learning rate at each of SOLVER.STEPS (WarmupMultiStepLR), or
                          at each decay (WarmupStepWithFixedGammaLR)
    SOLVER.MOMENTUM       of SGD
    SOLVER.NESTEROV       SGD with Nesterov's momentum
    SOLVER.NUM_DECAYS     of WarmupStepWithFixedGammaLR
    SOLVER.POLY_LR_CONSTANT_ENDING
                          WarmupPolyLR stays at this share of the learning rate once it falls below; 0: no
    SOLVER.RESCALE_INTERVAL
                          the schedule begins after the warm-up, not with it
    SOLVER.STEPS          iterations at which WarmupMultiStepLR lowers the learning rate
    SOLVER.WARMUP_METHOD  "linear", or "constant" at SOLVER.WARMUP_FACTOR
    SOLVER.WEIGHT_DECAY_BIAS
                          weight decay of biases; None: as of weights
    TEST.EXPECTED_RESULTS
                          results that an evaluation must give, as Detectron2 takes them
    VERSION               of Detectron2's configurations
    VIS_PERIOD            iterations between two pictures of the training batch; 0: none

pppc.config.checks.rules gives every key that has an effect, and its values; the others of Detectron2
are refused where they are set.
"""

import torch
from detectron2.config import CfgNode as CN
from detectron2.projects.deeplab import add_deeplab_config

__all__ = ["add_pppc_config"]


def add_pppc_config(cfg: CN) -> None:
    """Add PPPC's keys to ``cfg`` in place, and set Detectron2's that PPPC needs otherwise."""
    # DeepLab's project holds the polynomial learning rate and the class-balanced crop.
    add_deeplab_config(cfg)
    _add_data(cfg)
    _add_model(cfg)
    _add_solver(cfg)
    _add_method(cfg)


def _add_data(cfg: CN) -> None:
    # Unlabeled target data sets. Only their images are ever opened.
    cfg.DATASETS.TARGET = ()

    # Order of the channels that the network takes.
    cfg.INPUT.FORMAT = "RGB"
    # Mean of each channel, of images in [0, 255]: ImageNet's.
    cfg.MODEL.PIXEL_MEAN = [123.675, 116.28, 103.53]
    # Standard deviation of each channel, likewise.
    cfg.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]
    # Images of more than 8 bits: "percentiles", the data set's values between its percentiles 0.1
    # and 99.9 become 0 to 255, since cameras use 10, 12 or 14 of 16 bits; or "full_range", 0 to 65535.
    cfg.INPUT.HIGH_BIT_DEPTH = "percentiles"
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE = "absolute"
    # (height, width) of the source crop and of the ambiguity-guided target crop, pixels.
    cfg.INPUT.CROP.SIZE = [512, 512]
    # A source crop in which one class fills more than this share is redrawn.
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 0.75
    # Shortest side of a resized source image, pixels; of several, one is drawn for each image.
    cfg.INPUT.MIN_SIZE_TRAIN = (512,)
    # Longest side of a resized source image, pixels.
    cfg.INPUT.MAX_SIZE_TRAIN = 2048
    # Shortest side of a resized test image, pixels; 0: images stay as they are.
    cfg.INPUT.MIN_SIZE_TEST = 512
    # Longest side of a resized test image, pixels.
    cfg.INPUT.MAX_SIZE_TEST = 2048

    cfg.INPUT.TARGET = CN()
    # Shortest side of a resized target image, pixels; 0: images stay as they are. The whole image
    # is loaded; the crop is chosen in the training step, from the pseudo-label.
    cfg.INPUT.TARGET.MIN_SIZE = 512
    # Longest side of a resized target image, pixels.
    cfg.INPUT.TARGET.MAX_SIZE = 2048

    # An image or label that can't be read while training is an "error", or "skip": another one is
    # drawn instead, and how many were left out is logged and in the metrics (data/unreadable).
    cfg.DATALOADER.UNREADABLE = "error"
    # "skip" ends with an error where more than this share of a data set's images is left out by
    # one process. One image always may be.
    cfg.DATALOADER.MAX_UNREADABLE = 0.05
    # Images of each data set that are read before training, evenly spaced over its list. Headers
    # of all are read; tools/check_datasets.py --read reads all images.
    cfg.DATALOADER.CHECK_SAMPLE = 32

    # Rare-class sampling of source images (DAFormer, arXiv 2111.14887).
    cfg.DATALOADER.RARE_CLASS_SAMPLING = CN()
    # Draw source images by their rare classes, not all alike.
    cfg.DATALOADER.RARE_CLASS_SAMPLING.ENABLED = True
    # Temperature of the softmax over (1 - class frequency): lower draws rare classes more often.
    cfg.DATALOADER.RARE_CLASS_SAMPLING.TEMPERATURE = 0.01
    # An image counts for a class when the class covers more than this share of it. The published
    # 3,000 pixels are 0.0015 of a 1914x1052 label.
    cfg.DATALOADER.RARE_CLASS_SAMPLING.MIN_AREA = 0.0015
    # The crop is redrawn until it holds more than this share of those pixels, ten times at most.
    cfg.DATALOADER.RARE_CLASS_SAMPLING.MIN_CROP_RATIO = 0.5


def _add_model(cfg: CN) -> None:
    # Student, teacher and prototypes; a model of one's own may take its place.
    cfg.MODEL.META_ARCHITECTURE = "PPPCSegmentor"
    # Where the networks run; with several processes each has its own GPU.
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    # File or address of the weights to start from or to evaluate (docs/weights.md).
    cfg.MODEL.WEIGHTS = ""
    # MODEL.WEIGHTS is a model of other classes: training starts from all of it but the classifier.
    # Where the file names its classes, the classifier's rows of equal names are taken over.
    cfg.MODEL.WEIGHTS_OTHER_CLASSES = False
    # BatchNorm uses the statistics of all processes' batches (CUDA).
    cfg.MODEL.SYNC_BATCH_NORM = False
    # What encoder and decoder compute again in the backward pass instead of keeping it, for less
    # memory: "none"; "cheap", all but costly matrix products, convolutions and attention; or "all".
    # Values and gradients are the same (docs/performance.md: what each costs).
    cfg.MODEL.RECOMPUTE = "none"
    cfg.register_deprecated_key("MODEL.TIMM.CHECKPOINT_ACTIVATIONS")  # in files of older runs

    # What builds the encoder.
    cfg.MODEL.BACKBONE.NAME = "build_timm_backbone"
    cfg.MODEL.TIMM = CN()
    # The encoder: any timm model that can return feature maps, and mit_b0 to mit_b5 (SegFormer).
    cfg.MODEL.TIMM.NAME = "mit_b5"
    # Download timm's own weights for this model (needs network), where MODEL.WEIGHTS names no file.
    cfg.MODEL.TIMM.PRETRAINED = False
    # Ratio of the input size to the size of the coarsest feature map: 32, 16 or 8.
    cfg.MODEL.TIMM.OUTPUT_STRIDE = 32
    # Stochastic depth: the last block's probability of being skipped, linear over the depth.
    cfg.MODEL.TIMM.DROP_PATH_RATE = 0.1

    # The decoder: DAFormerHead, SegFormerHead, ConvSegFormerHead (mmsegmentation's SegFormer) or
    # SeparableDeepLabV3PlusHead.
    cfg.MODEL.SEM_SEG_HEAD.NAME = "DAFormerHead"
    # The encoder's stages that the decoder takes, "stage1" the finest.
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["stage1", "stage2", "stage3", "stage4"]
    # Classes of the model: those of the target.
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 19
    # Label of pixels without a class.
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 255
    # Channels of the decoder.
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 256
    # Normalization after the decoder's convolutions; '': none.
    cfg.MODEL.SEM_SEG_HEAD.NORM = "BN"
    # Dilations of the spatial pyramid's branches (DAFormerHead, SeparableDeepLabV3PlusHead).
    cfg.MODEL.SEM_SEG_HEAD.ASPP_DILATIONS = [1, 6, 12, 18]
    # Probability that a channel before the classifier is dropped.
    cfg.MODEL.SEM_SEG_HEAD.DROPOUT = 0.1

    # Pixel embedding as a Gaussian: mean and log-variance (arXiv 2409.18543).
    cfg.MODEL.PROBABILISTIC_HEAD = CN()
    # Backbone features, resized to the finest of them and concatenated.
    cfg.MODEL.PROBABILISTIC_HEAD.IN_FEATURES = ["stage1", "stage2", "stage3", "stage4"]
    # Dimensions of the embedding.
    cfg.MODEL.PROBABILISTIC_HEAD.DIM = 512
    # Channels of the mean branch's hidden layers; 0: as many as come in.
    cfg.MODEL.PROBABILISTIC_HEAD.MID_CHANNELS = 256
    # 1x1 convolutions of the mean branch.
    cfg.MODEL.PROBABILISTIC_HEAD.NUM_CONVS = 2
    # Added to the log-variances, which are in (0, 1) otherwise (published: 0). Means have unit
    # length, so two of them differ by at most 4 / DIM a dimension, squared: beside variances above
    # 1 that is little, beside variances near 1 / DIM (a shift of -log DIM) it tells classes apart.
    cfg.MODEL.PROBABILISTIC_HEAD.LOG_VARIANCE_SHIFT = 0.0
    # Predict log-variances. False: they are LOG_VARIANCE_SHIFT everywhere, so that pixels are
    # points, for the deterministic contrast that the paper compares with.
    cfg.MODEL.PROBABILISTIC_HEAD.LEARN_VARIANCE = True


def _add_solver(cfg: CN) -> None:
    # "bfloat16", or "float16" with scaled losses, for GPUs without bfloat16.
    cfg.SOLVER.AMP.TYPE = "bfloat16"
    # "AdamW", or "SGD" (SOLVER.MOMENTUM, SOLVER.NESTEROV).
    cfg.SOLVER.OPTIMIZER = "AdamW"
    # AdamW's shares of the old moving averages, of gradients and of their squares.
    cfg.SOLVER.BETAS = (0.9, 0.999)
    # Learning rate of the encoder after the warm-up.
    cfg.SOLVER.BASE_LR = 6e-5
    # Weight decay of all weights but those below.
    cfg.SOLVER.WEIGHT_DECAY = 0.01
    # Weight decay of the backbone's normalization layers (0 for MiT, as published).
    cfg.SOLVER.WEIGHT_DECAY_NORM = 0.0
    # Learning rate of the decoder and of the embedding's mean, as a multiple of BASE_LR.
    cfg.SOLVER.HEAD_LR_FACTOR = 10.0
    # Learning rate of the embedding's variance, as a multiple of BASE_LR.
    cfg.SOLVER.VARIANCE_LR_FACTOR = 1.0
    # How the learning rate falls, by Detectron2's names.
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupPolyLR"
    # WarmupPolyLR: the learning rate falls as (1 - t / MAX_ITER) to this power.
    cfg.SOLVER.POLY_LR_POWER = 1.0
    # Iterations of the whole run.
    cfg.SOLVER.MAX_ITER = 40000
    # The warm-up starts at this multiple of the learning rate.
    cfg.SOLVER.WARMUP_FACTOR = 1e-6
    # Iterations of the warm-up.
    cfg.SOLVER.WARMUP_ITERS = 1500
    # Source images per iteration, over all processes.
    cfg.SOLVER.IMS_PER_BATCH = 2
    # Target images per iteration, over all processes.
    cfg.SOLVER.TARGET_IMS_PER_BATCH = 2
    # Iterations between two checkpoints.
    cfg.SOLVER.CHECKPOINT_PERIOD = 4000
    # Periodic checkpoints that stay, the last ones (MiT-B5: 1.4 GB each); 0: all. The best and the
    # final model stay always.
    cfg.SOLVER.MAX_TO_KEEP = 5
    # Iterations between two evaluations; 0: at the end alone.
    cfg.TEST.EVAL_PERIOD = 2000
    # Evaluate the teacher instead of the student.
    cfg.TEST.EVALUATE_TEACHER = False
    # Add to each prediction "uncertainty" (H, W), the entropy of the classes by the embedding's
    # scores with the prototypes, and "log_variance" (H, W), the embedding's mean log-variance; and
    # measure in evaluation whether they know where the model errs.
    cfg.TEST.UNCERTAINTY = False
    # Of all random numbers; -1: one is drawn, and recorded.
    cfg.SEED = 43


def _add_method(cfg: CN) -> None:
    cfg.PPPC = CN()
    cfg.PPPC.SELF_TRAINING = CN()
    # Self-training on the target: teacher, pseudo-labels, ClassMix. Off: source only.
    cfg.PPPC.SELF_TRAINING.ENABLED = True
    # The share of pixels whose pseudo-label is at least this probable weighs the target's part of
    # the mixed image (DACS, arXiv 2007.08702).
    cfg.PPPC.SELF_TRAINING.THRESHOLD = 0.968
    # First rows of the target crop that count nothing, pixels.
    cfg.PPPC.SELF_TRAINING.IGNORE_TOP = 0
    # Last rows of the target crop that count nothing, such as those of the car's bonnet, pixels.
    cfg.PPPC.SELF_TRAINING.IGNORE_BOTTOM = 0
    # Where each target image comes with one of the same place by day (as in the data set
    # dark_zurich_train_night_day_unlabeled), that one helps to label these classes.
    cfg.PPPC.SELF_TRAINING.STATIC_CLASSES = []

    cfg.PPPC.TEACHER = CN()
    # Exponential moving average of the student: teacher <- m teacher + (1 - m) student.
    cfg.PPPC.TEACHER.MOMENTUM = 0.999
    # The teacher's BatchNorm uses the batch's statistics (as published), not running ones.
    cfg.PPPC.TEACHER.BATCH_STATISTICS = True

    # Weights of the classes: 1 minus the spread times the standardized logarithm of the frequency.
    cfg.PPPC.CLASS_WEIGHTS = CN()
    # Share of the source's pixels that each class has, by train ID.
    cfg.PPPC.CLASS_WEIGHTS.FREQUENCIES = []
    # Of the weights in the cross-entropy and in the pseudo-labels of pairs of day and night;
    # 0: no weights.
    cfg.PPPC.CLASS_WEIGHTS.TRAIN_SPREAD = 0.0
    # Of the weights of the predicted probabilities; 0: no weights.
    cfg.PPPC.CLASS_WEIGHTS.TEST_SPREAD = 0.0

    cfg.PPPC.STRONG_AUGMENTATION = CN()
    # Brightness, contrast, saturation and hue change by at most this much of their range.
    cfg.PPPC.STRONG_AUGMENTATION.JITTER_STRENGTH = 0.2
    # Share of the iterations in which colors change.
    cfg.PPPC.STRONG_AUGMENTATION.JITTER_PROBABILITY = 0.8
    # Share of the iterations in which images are blurred.
    cfg.PPPC.STRONG_AUGMENTATION.BLUR_PROBABILITY = 0.5

    # Ambiguity-guided crop of the target image (arXiv 2409.18543).
    cfg.PPPC.AMBIGUITY_CROP = CN()
    # Random boxes of which the most ambiguous is kept. 1: a random crop.
    cfg.PPPC.AMBIGUITY_CROP.NUM_CANDIDATES = 10
    # Side of the image that the teacher labels for this choice, as a multiple of the target's
    # (published: 1). The crop is cut from the whole image and labeled anew.
    cfg.PPPC.AMBIGUITY_CROP.SCALE = 1.0
    # Classes that count: the most ambiguous ones.
    cfg.PPPC.AMBIGUITY_CROP.TOP_K = 10
    # Temperature of the softmax over the classes' mean log-variance.
    cfg.PPPC.AMBIGUITY_CROP.TEMPERATURE = 0.01
    # Standardize the log-variances over the classes seen before the softmax, so that the choice
    # does not depend on their scale (published: off).
    cfg.PPPC.AMBIGUITY_CROP.STANDARDIZE = False

    # Class prototypes as Gaussians (arXiv 2409.18543).
    cfg.PPPC.PROTOTYPES = CN()
    # "ema": moving average of the batches' products of Gaussians; "posterior": product over all
    # batches; "batch": this batch's product alone.
    cfg.PPPC.PROTOTYPES.UPDATE_RULE = "ema"
    # "product": the precision is the sum over pixels; "count_normalized": their mean.
    cfg.PPPC.PROTOTYPES.VARIANCE = "product"
    # "ema": the share of a prototype that an update keeps, after the first ones.
    cfg.PPPC.PROTOTYPES.MOMENTUM = 0.999
    # "posterior": the share of the accumulated precision that an update keeps.
    cfg.PPPC.PROTOTYPES.FORGETTING = 1.0
    # Use the target's pseudo-labeled pixels too, those of CONTRAST.TARGET_THRESHOLD.
    cfg.PPPC.PROTOTYPES.INCLUDE_TARGET = False

    # Contrast of pixels and prototypes (arXiv 2409.18543).
    cfg.PPPC.CONTRAST = CN()
    # Use the contrast. Off: DACS, which has no embedding and no prototypes.
    cfg.PPPC.CONTRAST.ENABLED = True
    # Between a pixel and a prototype: "mutual_likelihood", "bhattacharyya", "wasserstein",
    # "kullback_leibler", "jensen_shannon" or, of the means alone, "cosine".
    cfg.PPPC.CONTRAST.SCORE = "mutual_likelihood"
    # Divides the score between a pixel and a prototype.
    cfg.PPPC.CONTRAST.TEMPERATURE = 100.0
    # Weight of the divergence of a pixel's Gaussian from the standard one, summed over pixels.
    cfg.PPPC.CONTRAST.KL_WEIGHT = 1e-6
    # Target pixels whose pseudo-label is less probable take no part (published: all do).
    cfg.PPPC.CONTRAST.TARGET_THRESHOLD = 0.0
    # Of each class and pass that many pixels at most, drawn at random; 0: all (published).
    cfg.PPPC.CONTRAST.MAX_PIXELS_PER_CLASS = 0
    # Weight of the contrast beside cross-entropy.
    cfg.PPPC.CONTRAST.LOSS_WEIGHT = 1.0
    # Iterations before the contrast begins.
    cfg.PPPC.CONTRAST.START_ITER = 3000
    # The weight falls as exp(multiplier * ((t + 1) / MAX_ITER)^2); 0: constant.
    cfg.PPPC.CONTRAST.RAMP_MULTIPLIER = -1.0
