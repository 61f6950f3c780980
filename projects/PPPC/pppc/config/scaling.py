"""Constants that are -1 in a configuration: the published ones, scaled to its size.

They were published for 40,000 iterations, 19 classes and batches of two crops of 640x640; other methods'
parts for what stands there.
"""

import math

from detectron2.config import CfgNode


def self_training_start(cfg: CfgNode) -> int:
    """The first iteration that trains on the target, too."""
    return int(cfg.PPPC.SELF_TRAINING.START * cfg.SOLVER.MAX_ITER)


def mix(cfg: CfgNode) -> str:
    """What of the source is pasted onto the target."""
    name = cfg.PPPC.SELF_TRAINING.MIX
    return name if name != "auto" else "class" if cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES > 2 else "box"


def contrast_start(cfg: CfgNode) -> int:
    """The first iteration with the contrast: 3,000 of 40,000, and not before self-training.

    Examples:
        >>> from pppc import load_config
        >>> cfg = load_config("configs/demo_gta_to_cityscapes_pppc.yaml", ["SOLVER.MAX_ITER", 400])
        >>> cfg.PPPC.CONTRAST.START_ITER, contrast_start(cfg)
        (-1, 200)
    """
    start = cfg.PPPC.CONTRAST.START_ITER
    start = 3000 * cfg.SOLVER.MAX_ITER // 40_000 if start == -1 else start
    return max(start, self_training_start(cfg))


def mask_block_size(cfg: CfgNode) -> int:
    """Side of the blocks that are hidden: 64 pixels of crops of 1024x1024, 32 of 512x512."""
    size = cfg.PPPC.MASKING.BLOCK_SIZE
    return max(min(cfg.INPUT.CROP.SIZE) // 16, 1) if size == -1 else size


def crop_top_k(cfg: CfgNode) -> int:
    """How many classes count by the variance of their prototype: 10 of 19."""
    top_k = cfg.PPPC.AMBIGUITY_CROP.TOP_K
    return math.ceil(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES * 10 / 19) if top_k == -1 else top_k


def crop_temperature(cfg: CfgNode) -> float:
    """Of the softmax over the prototypes' variances, which are about one over a class's pixels."""
    temperature = cfg.PPPC.AMBIGUITY_CROP.TEMPERATURE
    pixels = cfg.SOLVER.IMS_PER_BATCH * math.prod(cfg.INPUT.CROP.SIZE)
    return 0.01 * 2 * 640 * 640 / pixels if temperature == -1 else temperature
