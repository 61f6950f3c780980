"""Options that save time or memory change what they say, and nothing else."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from pppc import add_pppc_config
from pppc.engine.trainer import AdaptationLoop
from pppc.modeling.timm_backbone import TimmBackbone
from pppc.solver import build_optimizer
from pppc.structures import PixelBatch


@pytest.mark.parametrize("name", ["mit_b0", "resnet18"])
def test_checkpointed_activations_give_the_same_gradients(name):
    image = torch.randn(2, 3, 64, 64)
    gradients, kept = [], []
    for checkpoint_activations in (False, True):
        torch.manual_seed(0)
        backbone = TimmBackbone(name, checkpoint_activations=checkpoint_activations).train()
        bytes_kept = 0

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal bytes_kept
            bytes_kept += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            total = sum(feature.square().mean() for feature in backbone(image).values())
        kept.append(bytes_kept)
        total.backward()
        gradients.append([p.grad for p in backbone.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)
    assert kept[1] < 0.8 * kept[0]


def test_the_crop_is_chosen_on_a_smaller_image_and_cut_from_the_whole_one():
    cfg = get_cfg()
    add_pppc_config(cfg)
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.TIMM.NAME", "test_convnext", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 16,
         "MODEL.PROBABILISTIC_HEAD.DIM", 8, "MODEL.PROBABILISTIC_HEAD.MID_CHANNELS", 8,
         "INPUT.CROP.SIZE", [64, 64], "PPPC.AMBIGUITY_CROP.SCALE", 0.5,
         "DATASETS.TRAIN", ("gta_train",)]
    )  # fmt: skip
    torch.manual_seed(0)
    segmentor = build_model(cfg)
    loop = AdaptationLoop(cfg, segmentor, None, build_optimizer(cfg, segmentor), seed=0)
    seen = []
    segmentor.teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    image = 255 * torch.rand(2, 3, 128, 256)
    with EventStorage():
        crop = loop.ambiguity_crop(PixelBatch(image), torch.Generator().manual_seed(0)).image
    assert seen == [(2, 3, 64, 128)] and crop.shape == (2, 3, 64, 64)
    windows = image.unfold(2, 64, 1).unfold(3, 64, 1)
    for whole, cut in zip(windows, crop):
        assert (whole == cut[:, None, None]).flatten(3).all(-1).all(0).any()
