"""Options that save time or memory change what they say, and nothing else."""

import gc

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from pppc import add_pppc_config
from pppc.engine.adaptation_loop import AdaptationLoop
from pppc.solver import build_optimizer
from pppc.structures import PixelBatch


NETWORKS = {
    "MiT": ["MODEL.TIMM.NAME", "mit_b0", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 16],
    "ResNet": ["MODEL.TIMM.NAME", "resnet26", "MODEL.TIMM.OUTPUT_STRIDE", 8,
               "MODEL.TIMM.DROP_PATH_RATE", 0.0, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 16,
               "MODEL.SEM_SEG_HEAD.NAME", "SeparableDeepLabV3PlusHead",
               "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["stage1", "stage4"]],
    "ConvNeXt": ["MODEL.TIMM.NAME", "test_convnext", "MODEL.SEM_SEG_HEAD.NAME", "SegFormerHead"],
    "MobileNet": ["MODEL.TIMM.NAME", "mobilenetv3_small_050"],
}  # fmt: skip


def pass_of(network: str, what: str, *opts: object) -> tuple[dict[str, torch.Tensor], int]:
    """Losses, gradients and state after a pass of the student, and the bytes alive before backward."""
    cfg = get_cfg()
    add_pppc_config(cfg)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "DATASETS.TRAIN", ("gta_train",),
                         "MODEL.PROBABILISTIC_HEAD.DIM", 8, "MODEL.RECOMPUTE", what,
                         "MODEL.PROBABILISTIC_HEAD.MID_CHANNELS", 8, *NETWORKS[network], *opts])  # fmt: skip
    torch.manual_seed(0)
    segmentor = build_model(cfg).train()
    generator = torch.Generator().manual_seed(0)
    image = 255 * torch.rand(2, 3, 128, 128, generator=generator)
    label = torch.randint(19, (2, 128, 128), generator=generator)
    segmentor.prototypes.num_updates += 1
    torch.manual_seed(1)  # Dropout and DropPath
    gc.collect()  # or another test's networks may be freed, and counted, in this pass
    with torch.profiler.profile(profile_memory=True) as profiler:
        losses = segmentor(PixelBatch(image, label), contrast_scale=1.0)
    kept = sum(event.self_cpu_memory_usage for event in profiler.key_averages())
    sum(losses.values()).backward()
    result = dict(losses) | segmentor.student.state_dict(prefix="state ")
    result |= {f"gradient {i}": p.grad for i, p in enumerate(segmentor.student.parameters())}
    return {name: value.detach() for name, value in result.items()}, kept


@pytest.mark.parametrize("half_precision", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_computed_again_changes_memory_alone(network, half_precision):
    amp = ("SOLVER.AMP.ENABLED", half_precision)
    plain, kept = pass_of(network, "none", *amp)
    cheap, kept_if_cheap = pass_of(network, "cheap", *amp)
    inputs, kept_if_all = pass_of(network, "all", *amp)
    assert plain.keys() == cheap.keys() == inputs.keys()
    for name, value in plain.items():
        assert torch.equal(value, cheap[name]) and torch.equal(value, inputs[name]), name
    assert kept_if_all <= kept_if_cheap < 0.85 * kept


def test_another_kind_of_recomputation_is_an_error():
    with pytest.raises(ValueError, match="MODEL.RECOMPUTE is 'some'"):
        pass_of("MiT", "some")


def loop_of(*opts: object) -> AdaptationLoop:
    cfg = get_cfg()
    add_pppc_config(cfg)
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.TIMM.NAME", "test_convnext", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 16,
         "MODEL.PROBABILISTIC_HEAD.DIM", 8, "MODEL.PROBABILISTIC_HEAD.MID_CHANNELS", 8,
         "INPUT.CROP.SIZE", [64, 64], "DATASETS.TRAIN", ("gta_train",), *opts]
    )  # fmt: skip
    torch.manual_seed(0)
    segmentor = build_model(cfg)
    return AdaptationLoop(cfg, segmentor, None, build_optimizer(cfg, segmentor), seed=0)


def test_the_crop_is_chosen_on_a_smaller_image_and_cut_from_the_whole_one():
    loop = loop_of("PPPC.AMBIGUITY_CROP.SCALE", 0.5)
    seen = []
    loop.segmentor.teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    image = 255 * torch.rand(2, 3, 128, 256)
    with EventStorage():
        crop = loop.ambiguity_crop(PixelBatch(image), torch.Generator().manual_seed(0)).image
    assert seen == [(2, 3, 64, 128)] and crop.shape == (2, 3, 64, 64)
    windows = image.unfold(2, 64, 1).unfold(3, 64, 1)
    for whole, cut in zip(windows, crop):
        assert (whole == cut[:, None, None]).flatten(3).all(-1).all(0).any()


def test_a_class_without_a_prototype_is_not_the_most_ambiguous_one(monkeypatch):
    loop = loop_of("PPPC.AMBIGUITY_CROP.TEMPERATURE", 1.0)
    prototypes = loop.segmentor.prototypes
    prototypes.num_updates[:3] = 1
    prototypes.log_var[:3] = -7.0  # of classes not seen: 0
    weights = []

    def choose_crop(label, class_weights, *_):
        weights.append(class_weights)
        return 0, 0

    monkeypatch.setattr("pppc.engine.adaptation_loop.choose_crop", choose_crop)
    loop.ambiguity_crop(PixelBatch(255 * torch.rand(1, 3, 64, 128)), torch.Generator())
    torch.testing.assert_close(weights[0], torch.tensor([1 / 3] * 3 + [0.0] * 16))
