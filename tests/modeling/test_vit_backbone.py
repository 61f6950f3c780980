"""Plain vision transformers: timm's features, patches of any size, what learns, and a run."""

import numpy as np
import pppc
import pytest
import timm
import torch
from detectron2.modeling import build_model
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.engine import Trainer
from pppc.engine.solver import build_optimizer
from pppc.errors import InputError
from pppc.modeling.vit_backbone import PlainViT
from timm.layers import resample_patch_embed
from tiny_run import tiny_config

OPTS = [
    "MODEL.BACKBONE.NAME", "build_vit_backbone", "MODEL.TIMM.NAME", "test_vit", "MODEL.VIT.CHANNELS", 16,
    "MODEL.SEM_SEG_HEAD.NAME", "SegFormerHead",
]  # fmt: skip


@pytest.mark.parametrize("patch", [16, 14])
def test_files_of_timm_give_timm_s_features(patch, tmp_path):
    torch.manual_seed(0)
    theirs = timm.create_model("test_vit", patch_size=patch, img_size=10 * patch).eval()
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    model = build_model(tiny_config(tmp_path, *OPTS)).eval()
    StrictCheckpointer(model, cfg=tiny_config(tmp_path, *OPTS)).load(str(tmp_path / "vit.pth"))
    ours = model.student.backbone.model
    image = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        (features,) = ours.forward_intermediates(
            image, indices=1, norm=True, intermediates_only=True
        )
    if patch == 16:
        expected = theirs.forward_features(image)[:, theirs.num_prefix_tokens :]
        assert torch.equal(features.flatten(2).mT, expected)
    else:
        expected = resample_patch_embed(theirs.patch_embed.proj.weight, [16, 16])
        assert torch.equal(ours.patch_embed.proj.weight, expected)
        assert torch.equal(ours.pos_embed, theirs.pos_embed)  # 10 x 10 of them in both


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3"])
def test_images_of_any_size_give_four_maps(name):
    with torch.device("meta"):
        encoder = PlainViT(name, channels=8)
        features = encoder(torch.zeros(2, 3, 64, 96))
    shapes = {name: tuple(feature.shape) for name, feature in features.items()}
    assert shapes == {f"stage{i + 1}": (2, 8, 64 >> i + 2, 96 >> i + 2) for i in range(4)}
    assert [shape.stride for shape in encoder.output_shape().values()] == [4, 8, 16, 32]


def test_blocks_learn_by_their_depth_and_frozen_ones_do_not(tmp_path):
    opts = ["MODEL.VIT.FROZEN", 2, "MODEL.VIT.LR_DECAY", 0.5, "SOLVER.HEAD_LR_FACTOR", 10.0,
            "SOLVER.BASE_LR", 1e-3]  # fmt: skip
    cfg = tiny_config(tmp_path, *OPTS, *opts)
    model = build_model(cfg)
    rates = {
        id(parameter): group["lr"]
        for group in build_optimizer(cfg, model).param_groups
        for parameter in group["params"]
    }
    encoder = model.student.backbone
    named = dict(encoder.named_parameters())
    trained = {name: rates[id(p)] for name, p in named.items() if p.requires_grad}
    assert not set(rates) & {id(p) for p in named.values() if not p.requires_grad}
    blocks = encoder.num_blocks
    assert blocks == 6
    for block in range(blocks):
        rate = trained.get(f"model.blocks.{block}.attn.qkv.weight")
        assert rate == (None if block < 2 else pytest.approx(1e-3 * 0.5 ** (blocks - 1 - block)))
    assert "model.pos_embed" not in trained and "model.patch_embed.proj.weight" not in trained
    assert trained["model.norm.weight"] == pytest.approx(1e-3)
    assert trained["pyramid.simfp_2.0.weight"] == pytest.approx(1e-2)

    whole = PlainViT("test_vit", channels=8, frozen=-1)
    assert not any(parameter.requires_grad for parameter in whole.model.parameters())
    assert all(parameter.requires_grad for parameter in whole.pyramid.parameters())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "resnet18"}, "build_timm_backbone"),
        ({"name": "test_vit", "frozen": 7}, "has 6 blocks"),
    ],
)
def test_what_is_no_plain_transformer_is_one_line(options, said):
    with pytest.raises(InputError, match=said):
        PlainViT(**options)


def test_a_run_with_a_plain_transformer(datasets_root, tmp_path):
    opts = ["MODEL.VIT.LR_DECAY", 0.9, "MODEL.VIT.FROZEN", 1, "SOLVER.MAX_ITER", 2, "VIS_PERIOD", 0]
    cfg = tiny_config(tmp_path, *OPTS, *opts, "MODEL.RECOMPUTE", "encoder")
    trainer = Trainer(cfg)
    frozen = trainer.model.student.backbone.model.blocks[0].attn.qkv.weight.clone()
    trained = trainer.model.student.backbone.model.blocks[1].attn.qkv.weight.clone()
    trainer.train()
    blocks = trainer.model.student.backbone.model.blocks
    assert torch.equal(blocks[0].attn.qkv.weight, frozen)
    assert not torch.equal(blocks[1].attn.qkv.weight, trained)
    result = pppc.load(tmp_path).predict(np.zeros((70, 150, 3), np.uint8))
    assert result.labels.shape == (70, 150)
