"""The keys of the method itself, all of them below PPPC."""

from ..method.ambiguity_crop import CRITERIA
from ..method.contrast import KL_REDUCTIONS
from ..method.gaussian import SCORES
from ..method.mixing import MIXES
from ..method.prototypes import CONVENTIONS, UPDATE_RULES, VARIANCES
from .rules import (
    ABOVE_0,
    BELOW_1,
    FREQUENCIES,
    NAMES,
    NOT_ABOVE_0,
    NOT_BELOW_0,
    PART,
    SHARE,
    SWITCH,
    TEXT,
    Key,
    OneOf,
    number,
    or_scaled,
    whole,
)

METHOD_KEYS = (
    Key("PPPC.SELF_TRAINING.ENABLED", True, SWITCH,
        "Self-training on the target: teacher, pseudo-labels, ClassMix. Off: source only."),
    Key("PPPC.SELF_TRAINING.START", 0.0, BELOW_1,
        "The share of the iterations that train on the source alone before self-training and contrast begin, "
        "so that no teacher teaches that has learnt nothing (published: 0)."),
    Key("PPPC.SELF_TRAINING.MIX", "class", OneOf((*MIXES, "auto")),
        'What of the source is pasted onto the target: "class", half of the batch\'s classes (ClassMix, as '
        'published); "box", a random box of half an image; "auto": of two classes "box", of more "class".'),
    Key("PPPC.SELF_TRAINING.THRESHOLD", 0.968, SHARE,
        "The share of pixels whose pseudo-label is at least this probable weighs the target's part of the "
        "mixed image (DACS, arXiv 2007.08702)."),
    Key("PPPC.SELF_TRAINING.IGNORE_TOP", 0, whole(0),
        "First rows of the target crop that count nothing, pixels."),
    Key("PPPC.SELF_TRAINING.IGNORE_BOTTOM", 0, whole(0),
        "Last rows of the target crop that count nothing, such as those of the car's bonnet, pixels."),
    Key("PPPC.SELF_TRAINING.STATIC_CLASSES", [], NAMES,
        "Where each target image comes with one of the same place by day (as in the data set "
        "dark_zurich_train_night_day_unlabeled), that one helps to label these classes."),
    Key("PPPC.TEACHER.MOMENTUM", 0.999, BELOW_1,
        "Exponential moving average of the student: teacher <- m teacher + (1 - m) student."),
    Key("PPPC.TEACHER.BATCH_STATISTICS", True, SWITCH,
        "The teacher's BatchNorm uses the batch's statistics (as published), not running ones."),
    Key("PPPC.CLASS_WEIGHTS.FREQUENCIES", [], FREQUENCIES,
        "Share of the source's pixels that each class has, by train ID. Empty: counted before training, "
        "and a trained model's own."),
    Key("PPPC.CLASS_WEIGHTS.TRAIN_SPREAD", 0.0, NOT_BELOW_0,
        "Of the weights in the cross-entropy and in the pseudo-labels of pairs of day and night; 0: no "
        "weights."),
    Key("PPPC.CLASS_WEIGHTS.TEST_SPREAD", 0.0, NOT_BELOW_0,
        "Of the weights of the predicted probabilities; 0: no weights."),
    Key("PPPC.CLASS_WEIGHTS.TEST_SUFFIX", "", TEXT,
        "End of the names of the image files with weighted predictions; '': all. Images without a file's "
        "name are weighted, too."),
    Key("PPPC.CLASS_BALANCE.PREDICTION", 0.0, NOT_BELOW_0,
        "Predicted probabilities are divided by the shares to this power; 0: they stay as they are."),
    Key("PPPC.CLASS_BALANCE.PSEUDO_LABELS", 0.0, NOT_BELOW_0,
        "The teacher's probabilities are divided by them before it labels target images."),
    Key("PPPC.CLASS_BALANCE.TRAINING", 0.0, NOT_BELOW_0,
        "The cross-entropy is that of probabilities multiplied by them (logit adjustment)."),
    Key("PPPC.STRONG_AUGMENTATION.JITTER_STRENGTH", 0.2, number(0, 0.5),
        "Brightness, contrast, saturation and hue change by at most this much of their range."),
    Key("PPPC.STRONG_AUGMENTATION.JITTER_PROBABILITY", 0.8, SHARE,
        "Share of the iterations in which colors change."),
    Key("PPPC.STRONG_AUGMENTATION.BLUR_PROBABILITY", 0.5, SHARE,
        "Share of the iterations in which images are blurred."),
    Key("PPPC.STRONG_AUGMENTATION.DENORMALIZED_SOURCE", False, SWITCH,
        "Where colors change, prototypes and mixes see the source image at a quarter of its contrast: a "
        "fault of the authors' code for the first two experiments, to tell what it is worth."),
    Key("PPPC.AMBIGUITY_CROP.CRITERION", "class_variance", OneOf(CRITERIA),
        'What boxes are chosen by. "class_variance" (published): their pixels of classes whose prototype '
        'has a large variance; "class_entropy": of classes that the teacher is unsure of in this image; '
        '"pixel_entropy": their pixels that it is unsure of; "random": nothing, and no image is labeled.'),
    Key("PPPC.AMBIGUITY_CROP.NUM_CANDIDATES", 10, whole(1),
        "Random boxes of which the best is kept. 1: a random crop."),
    Key("PPPC.AMBIGUITY_CROP.SCALE", 1.0, PART,
        "Side of the image that the teacher labels for this choice, as a multiple of the target's "
        "(published: 1). The crop is cut from the whole image and labeled anew."),
    Key("PPPC.AMBIGUITY_CROP.REUSE_LABELS", False, SWITCH,
        "The crop's pseudo-labels are cut from what the teacher says of the whole image for this choice, "
        "which saves a pass of it; False (published): the crop is labeled by a pass of its own."),
    Key("PPPC.AMBIGUITY_CROP.TOP_K", 10, or_scaled(whole(1)),
        '"class_variance": classes that count, the most ambiguous ones. -1: 10 of 19, in proportion.'),
    Key("PPPC.AMBIGUITY_CROP.TEMPERATURE", 0.01, or_scaled(ABOVE_0),
        '"class_variance": temperature of the softmax over what the prototypes keep of it. -1: 0.01 for a '
        "source batch of two crops of 640x640, in inverse proportion, as a product's variance is."),
    Key("PPPC.PROTOTYPES.CONVENTION", "published", OneOf(CONVENTIONS),
        'What the embedding\'s variance head gives. "log_variance": log-variances. "published": numbers in '
        '(0, 1) that the prototypes take for variances, and the score for log-variances; crop and score '
        'take the prototypes\' variances as they are, too.'),
    Key("PPPC.PROTOTYPES.UPDATE_RULE", "ema", OneOf(UPDATE_RULES),
        '"ema": moving average of the batches\' products of Gaussians; "posterior": product over all '
        'batches; "batch": this batch\'s product alone.'),
    Key("PPPC.PROTOTYPES.VARIANCE", "product", OneOf(VARIANCES),
        '"product": the precision is the sum over pixels; "count_normalized": their mean.'),
    Key("PPPC.PROTOTYPES.MOMENTUM", 0.999, BELOW_1,
        '"ema": the share of a prototype that an update keeps, after the first ones.'),
    Key("PPPC.PROTOTYPES.FORGETTING", 1.0, SHARE,
        '"posterior": the share of the accumulated precision that an update keeps.'),
    Key("PPPC.PROTOTYPES.INCLUDE_TARGET", False, SWITCH,
        "Use the target's pseudo-labeled pixels too, those of CONTRAST.TARGET_THRESHOLD."),
    Key("PPPC.CONTRAST.ENABLED", True, SWITCH,
        "Use the contrast. Off: DACS, which has no embedding and no prototypes."),
    Key("PPPC.CONTRAST.SCORE", "mutual_likelihood", OneOf(SCORES),
        'Between a pixel and a prototype: "mutual_likelihood", "bhattacharyya", "wasserstein", '
        '"kullback_leibler", "jensen_shannon" or, of the means alone, "cosine".'),
    Key("PPPC.CONTRAST.TEMPERATURE", 100.0, ABOVE_0,
        "Divides the score between a pixel and a prototype."),
    Key("PPPC.CONTRAST.KL_WEIGHT", 1e-6, NOT_BELOW_0,
        "Weight of the divergence of the pixels' Gaussians from the standard one."),
    Key("PPPC.CONTRAST.KL_REDUCTION", "sum", OneOf(KL_REDUCTIONS),
        'The divergence is the "sum" over pixels and dimensions (published), or their "mean", which does '
        'not grow with images, batches and dimensions.'),
    Key("PPPC.CONTRAST.TARGET_THRESHOLD", 0.0, SHARE,
        "Target pixels whose pseudo-label is less probable take no part (published: all do)."),
    Key("PPPC.CONTRAST.MAX_PIXELS_PER_CLASS", 0, whole(0),
        "Of each class and pass that many pixels at most, drawn at random; 0: all (published)."),
    Key("PPPC.CONTRAST.LOSS_WEIGHT", 1.0, NOT_BELOW_0, "Weight of the contrast beside cross-entropy."),
    Key("PPPC.CONTRAST.START_ITER", 3000, or_scaled(whole(0)),
        "Iterations before the contrast begins, with self-training at the earliest. -1: 3,000 of 40,000, in "
        "proportion."),
    Key("PPPC.CONTRAST.RAMP_MULTIPLIER", -1.0, NOT_ABOVE_0,
        "The weight falls as exp(multiplier * ((t + 1) / MAX_ITER)^2); 0: constant."),
    Key("PPPC.IMAGENET_PROTOTYPES.USE", "never", OneOf(("never", "always", "auto")),
        'Whether the probabilities by which the teacher labels target images are multiplied by those of the '
        'classes\' mean features in a frozen ImageNet encoder: "auto": of three classes and more, where the '
        'encoder\'s weights are known; "always": an error where they are not (published: never).'),
    Key("PPPC.IMAGENET_PROTOTYPES.PREDICTION", False, SWITCH,
        "Predicted probabilities are multiplied by them, too, also after source-only training, where USE has "
        "any, to a power from 0 to 1 that held-out source images choose (published: they are not)."),
    Key("PPPC.IMAGENET_PROTOTYPES.TEMPERATURE", 0.05, ABOVE_0,
        "Divides the cosine of a pixel's features and a class's."),
    Key("PPPC.IMAGENET_PROTOTYPES.WEIGHTS", "", TEXT,
        "File or address of the encoder's ImageNet weights; '': those of MODEL.WEIGHTS, which is to be an "
        "encoder then, or of MODEL.TIMM.PRETRAINED."),
    Key("PPPC.FEATURE_DISTANCE.LOSS_WEIGHT", 0.0, NOT_BELOW_0,
        "Weight of the distance beside cross-entropy; 0: there is none (DAFormer: 0.005)."),
    Key("PPPC.FEATURE_DISTANCE.WEIGHTS", "", TEXT, "As PPPC.IMAGENET_PROTOTYPES.WEIGHTS."),
    Key("PPPC.FEATURE_DISTANCE.CLASSES", [], NAMES,
        "The source's pixels of these classes count; []: the paper's, those of traffic light, traffic sign, "
        "person, rider, car, truck, bus, train, motorcycle and bicycle that the model has."),
    Key("PPPC.FEATURE_DISTANCE.MIN_SHARE", 0.75, PART,
        "A position of the feature map counts where one of them fills that share of its pixels."),
    Key("PPPC.MASKING.LOSS_WEIGHT", 0.0, NOT_BELOW_0,
        "Weight of the masked images' cross-entropy; 0: there are none (MIC: 1)."),
    Key("PPPC.MASKING.RATIO", 0.7, SHARE, "The share of the blocks that is hidden."),
    Key("PPPC.MASKING.BLOCK_SIZE", -1, or_scaled(whole(1)),
        "Side of a block, pixels. -1: a sixteenth of the crop's shorter side, as published, 64 of 1024 and "
        "32 of 512."),
)  # fmt: skip

METHOD_SECTIONS = {
    "PPPC.CLASS_WEIGHTS": "Weights of the classes: 1 minus the spread times the standardized "
    "logarithm of the frequency.",
    "PPPC.CLASS_BALANCE": "Powers of the source's class shares that make up for how frequent classes are "
    "(Menon et al., arXiv 2007.07314). tools/choose_class_balance.py chooses one on held-out source images.",
    "PPPC.AMBIGUITY_CROP": "Ambiguity-guided crop of the target image (arXiv 2409.18543).",
    "PPPC.PROTOTYPES": "Class prototypes as Gaussians (arXiv 2409.18543).",
    "PPPC.CONTRAST": "Contrast of pixels and prototypes (arXiv 2409.18543).",
    "PPPC.IMAGENET_PROTOTYPES": "Classes as a frozen copy of the encoder before training knows them, to "
    "label target images, and to predict, by (docs/method.md).",
    "PPPC.FEATURE_DISTANCE": "Distance of the source's features to a frozen ImageNet encoder's, on things "
    "(DAFormer, arXiv 2111.14887).",
    "PPPC.MASKING": "A pass more: target images of which most is hidden, with the teacher's labels of the "
    "whole ones (MIC, arXiv 2212.01322).",
}
