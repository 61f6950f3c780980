"""The configurations: their contrast acts, and they can be built."""

import math

import pytest
import torch
from conftest import REPOSITORY
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from pppc import load_config
from pppc.config.scaling import (
    contrast_start,
    crop_temperature,
    crop_top_k,
    mix,
    self_training_start,
)
from pppc.method.contrast import contrast_schedule
from pppc.modeling.probabilistic_head import build_probabilistic_head
from pppc.pixel_batch import PixelBatch
from tiny_run import default_config

CONFIGS = REPOSITORY / "configs"
PAIRS = ("demo_gta_to_cityscapes", "camvid_day_to_dusk")
METHODS = ("source_only", "dacs", "deterministic", "pppc_published", "pppc")


def load(name: str, *opts: object):
    return load_config(CONFIGS / f"{name}.yaml", ["MODEL.DEVICE", "cpu", *opts])


@pytest.mark.parametrize(
    "name", sorted(str(path.relative_to(CONFIGS))[:-5] for path in CONFIGS.glob("**/*.yaml"))
)
def test_every_configuration_merges(name):
    load(name)


def test_methods_and_ablations_differ_from_each_other_and_from_pppc():
    pair = "demo_gta_to_cityscapes"
    names = [f"{pair}_{method}" for method in METHODS]
    names += sorted(f"ablations/{path.stem}" for path in CONFIGS.glob("ablations/*.yaml"))
    settings = {}
    for name in names:
        cfg = load(name)
        cfg.OUTPUT_DIR = ""
        settings.setdefault(cfg.dump(), []).append(name)
    assert sorted(settings.values()) == sorted([name] for name in names)


@pytest.mark.parametrize("pair", PAIRS)
def test_published_contrast_is_that_of_the_defaults(pair):
    """All but what is scaled, which is that of the defaults at their size."""
    published, defaults = load(f"{pair}_pppc_published"), default_config()
    size = ["INPUT.CROP.SIZE", "[640,640]", "SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 40000,
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 19, "INPUT.TARGET.MIN_SIZE", 640,
            "INPUT.TARGET.MAX_SIZE", 1280]  # fmt: skip
    at_size = load(f"{pair}_pppc_published", *size)
    crop, contrast = published.PPPC.AMBIGUITY_CROP, published.PPPC.CONTRAST
    for node, name, scaled in (
        (crop, "TOP_K", crop_top_k),
        (crop, "TEMPERATURE", crop_temperature),
        (contrast, "START_ITER", contrast_start),
    ):
        assert node[name] == -1
        node[name] = scaled(defaults)
        assert scaled(at_size) == node[name]
    for node in ("CONTRAST", "PROTOTYPES", "AMBIGUITY_CROP", "STRONG_AUGMENTATION"):
        assert published.PPPC[node] == defaults.PPPC[node]
    head = published.MODEL.PROBABILISTIC_HEAD
    assert not head.VARIANCE_OVER_DIM and head.LEARN_VARIANCE


def test_published_constants_follow_the_size():
    demo = load("demo_gta_to_cityscapes_pppc_published", "SOLVER.MAX_ITER", 700)
    assert contrast_start(demo) == 52 and crop_top_k(demo) == 10
    assert crop_temperature(demo) == pytest.approx(0.01 * (640 * 640) / (128 * 192))
    camvid = load("camvid_day_to_dusk_pppc_published", "SOLVER.MAX_ITER", 1000)
    assert contrast_start(camvid) == 75 and crop_top_k(camvid) == 6


def test_the_recommended_mix_is_of_boxes_where_there_are_two_classes():
    assert mix(load("demo_gta_to_cityscapes_pppc")) == "class"
    assert mix(load("demo_gta_to_cityscapes_pppc", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2)) == "box"


def test_the_recommended_embedding_is_scaled_by_its_dimensions():
    for dim in (16, 512):
        cfg = load("demo_gta_to_cityscapes_pppc", "MODEL.PROBABILISTIC_HEAD.DIM", dim)
        head = build_probabilistic_head(
            cfg, {f"stage{n}": ShapeSpec(4, stride=2**n) for n in (2, 3, 4)}
        )
        features = {f"stage{n}": torch.randn(1, 4, 2 ** (7 - n), 2 ** (7 - n)) for n in (2, 3, 4)}
        variance = head(features)[1].exp()
        assert 1 <= dim * variance.min() and dim * variance.max() <= math.e


@pytest.mark.parametrize("pair", PAIRS)
def test_contrast_acts_in_half_of_the_self_training_and_reaches_the_backbone(pair):
    cfg = load(f"{pair}_pppc")
    contrast, max_iter = cfg.PPPC.CONTRAST, cfg.SOLVER.MAX_ITER
    scales = [
        contrast.LOSS_WEIGHT
        * contrast_schedule(t, max_iter, contrast_start(cfg), contrast.RAMP_MULTIPLIER)
        for t in range(max_iter)
    ]
    assert sum(scale > 0 for scale in scales) >= (max_iter - self_training_start(cfg)) / 2

    torch.manual_seed(0)
    model = build_model(cfg).train()
    label = torch.randint(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, (2, 8, 8))
    label = label.repeat_interleave(8, 1).repeat_interleave(8, 2)
    batch = PixelBatch(255 * torch.rand(2, 3, 64, 64), label)
    with torch.no_grad():
        embedding = model.teacher(batch.image, logits=False, embedding=True)
    model.prototypes.update(embedding.mean, embedding.log_var, label)

    def gradient(loss: torch.Tensor) -> float:
        model.zero_grad()
        loss.backward()
        parameters = model.student.backbone.parameters()
        return torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm().item()

    cross_entropy = gradient(model(batch)["loss_segmentation"])
    losses = model(batch, segmentation=False, contrast_scale=scales[max_iter // 2])
    # Not merely above rounding: a thousandth of the cross-entropy's, the Kullback-Leibler term,
    # whose sum drives the published configuration, aside.
    assert gradient(losses["loss_contrast"]) > 1e-3 * cross_entropy


@pytest.mark.parametrize("pair", PAIRS)
def test_baselines_differ_from_pppc_in_the_method_alone(pair):
    pppc = load(f"{pair}_pppc")
    for method in METHODS:
        baseline = load(f"{pair}_{method}")
        baseline.PPPC, baseline.OUTPUT_DIR = pppc.PPPC, pppc.OUTPUT_DIR
        baseline.MODEL.PROBABILISTIC_HEAD = pppc.MODEL.PROBABILISTIC_HEAD
        assert baseline == pppc
    assert not load(f"{pair}_source_only").PPPC.SELF_TRAINING.ENABLED
    augmentation = pppc.PPPC.STRONG_AUGMENTATION
    assert load(f"{pair}_source_only").PPPC.STRONG_AUGMENTATION == augmentation
