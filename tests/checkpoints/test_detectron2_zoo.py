"""Detectron2's backbones in the step, and files of its model zoo for them."""

import pickle
import re

import numpy as np
import pytest
import torch
from detectron2.modeling import BACKBONE_REGISTRY, build_model
from detectron2.modeling.backbone import SimpleFeaturePyramid, ViT
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.swin import SwinTransformer
from detectron2.utils.events import EventStorage
from pppc import load_config
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.errors import InputError
from pppc.pixel_batch import PixelBatch
from tiny_run import OPTIONS, demo_config, loop_of

STAGES, LEVELS = ["res2", "res3", "res4", "res5"], ["p2", "p3", "p4", "p5"]
RESNET = ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64,
          "MODEL.RESNETS.OUT_FEATURES", STAGES]  # fmt: skip
IMAGENET = ["MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53],
            "MODEL.PIXEL_STD", [58.395, 57.12, 57.375]]  # fmt: skip
FPN = [*RESNET, "MODEL.FPN.IN_FEATURES", STAGES, "MODEL.FPN.OUT_CHANNELS", 32]


@pytest.fixture(autouse=True)
def transformers(monkeypatch):
    """Detectron2's Swin and ViT have no builder of its own: their users register one like these."""

    def build_swin(cfg, input_shape):
        return SwinTransformer(
            embed_dim=24, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=4
        )

    def build_vit(cfg, input_shape):
        net = ViT(img_size=64, embed_dim=48, depth=1, num_heads=2, use_rel_pos=True, window_size=4,
                  out_feature="last_feat")  # fmt: skip
        return SimpleFeaturePyramid(net, "last_feat", 32, (4.0, 2.0, 1.0, 0.5), LastLevelMaxPool())

    monkeypatch.setattr(BACKBONE_REGISTRY, "_obj_map", dict(BACKBONE_REGISTRY._obj_map))
    BACKBONE_REGISTRY.register(build_swin)
    BACKBONE_REGISTRY.register(build_vit)


def config(builder: str, stages: list[str], *opts: object):
    keys = [f"MODEL.{head}.IN_FEATURES" for head in ("SEM_SEG_HEAD", "PROBABILISTIC_HEAD")]
    return load_config(
        demo_config("pppc"),
        [*OPTIONS, *IMAGENET, "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", builder, keys[0], stages, keys[1],
         stages, *opts],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("builder", "stages", "opts"),
    [
        ("build_resnet_backbone", STAGES, RESNET),
        ("build_resnet_fpn_backbone", LEVELS, FPN),
        ("build_resnet_fpn_backbone", LEVELS,
         [*FPN, "MODEL.SEM_SEG_HEAD.NAME", "SemSegFPNHead", "MODEL.SEM_SEG_HEAD.NORM", "GN",
          "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32]),
        ("build_resnet_deeplab_backbone", ["res5"],
         ["MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.OUT_FEATURES", ["res5"],
          "MODEL.RESNETS.STEM_OUT_CHANNELS", 16, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32,
          "MODEL.RESNETS.WIDTH_PER_GROUP", 8, "MODEL.SEM_SEG_HEAD.NAME", "DeepLabV3Head",
          "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 16, "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS", [1, 2, 3]]),
        ("build_timm_backbone", ["stage1", "stage4"],
         ["MODEL.SEM_SEG_HEAD.NAME", "DeepLabV3PlusHead", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32,
          "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS", [1, 2, 3],
          "MODEL.SEM_SEG_HEAD.PROJECT_FEATURES", ["stage1"]]),
        ("build_swin", ["p0", "p1", "p2", "p3"], []),
        ("build_vit", LEVELS, []),
    ],
)  # fmt: skip
def test_a_step_and_a_prediction_of_another_size(builder, stages, opts, caplog):
    opts = [*opts, "PPPC.CLASS_WEIGHTS.FREQUENCIES", [1 / 19] * 19]
    cfg = config(builder, stages, *opts)
    assert "no effect" not in caplog.text
    number = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    label = torch.randint(number, (2, 6, 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    batches = (PixelBatch(255 * torch.rand(2, 3, 48, 64), label),
               PixelBatch(255 * torch.rand(2, 3, 72, 100)))  # fmt: skip
    loop = loop_of(cfg, [batches])
    segmentor = loop.segmentor
    loop.iter = cfg.PPPC.CONTRAST.START_ITER
    trained = [p for p in segmentor.student.parameters() if p.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    with EventStorage() as loop.storage:
        loop.before_step()
        loop.run_step()
    assert sum(not a.equal(b) for a, b in zip(trained, before)) > 0.8 * len(before)
    (output,) = segmentor.eval()([{"image": torch.zeros(3, 50, 75), "height": 100, "width": 150}])
    assert output["sem_seg"].shape == (number, 100, 150)


def caffe2_name(key: str) -> str:
    """The Caffe2 name of a tensor of Detectron2's ResNet."""
    key = re.sub(r"^stem\.conv1\.norm", "res.conv1.norm", key).removeprefix("stem.")
    for ours, theirs in ((".conv1.", ".branch2a."), (".conv2.", ".branch2b."),
                         (".shortcut.", ".branch1.")):  # fmt: skip
        key = key.replace(ours, theirs) if key.startswith("res") and key[3] != "." else key
    ends = {"norm.weight": "bn.s", "norm.bias": "bn.b", "norm.running_mean": "bn.rm",
            "norm.running_var": "bn.riv"}  # fmt: skip
    for ours, theirs in ends.items():
        key = key.replace(ours, theirs)
    return re.sub(r"\.weight$", ".w", key).replace(".", "_")


def resnet_file(path, cfg, author: str | None):
    """A file of the model zoo with random weights of a configuration's ResNet, and these."""
    torch.manual_seed(1)
    backbone = build_model(cfg).student.backbone
    resnet = getattr(backbone, "bottom_up", backbone)
    weights = {k: torch.randn_like(v) for k, v in resnet.state_dict().items()}
    arrays = {key: tensor.numpy() for key, tensor in weights.items()}
    if author is None:
        content = {caffe2_name(key): array for key, array in arrays.items()}
        content |= {
            "fc1000_w": np.zeros((5, 4), np.float32),
            "conv1_w_momentum": arrays["stem.conv1.weight"],
        }
    elif author == "torchvision":
        content = {"model": arrays | {"stem.fc.weight": np.zeros((5, 4), np.float32)},
                   "__author__": author, "matching_heuristics": True}  # fmt: skip
    else:
        whole = {f"backbone.bottom_up.{key}": array for key, array in arrays.items()}
        whole["sem_seg_head.predictor.weight"] = np.zeros((54, 128, 1, 1), np.float32)
        content = {"model": whole, "__author__": author}
    path.write_bytes(pickle.dumps(content))
    return weights


BGR = ["MODEL.PIXEL_MEAN [103.53, 116.28, 123.675]", "MODEL.PIXEL_STD [1.0, 1.0, 1.0]",
       "INPUT.FORMAT BGR"]  # fmt: skip


@pytest.mark.parametrize(
    ("builder", "stages", "opts"),
    [
        ("build_resnet_backbone", STAGES, RESNET),
        ("build_resnet_fpn_backbone", LEVELS, FPN),
    ],
)
@pytest.mark.parametrize(
    ("author", "said"), [(None, BGR), ("torchvision", []), ("Detectron2 Model Zoo", BGR)]
)
def test_a_file_of_the_model_zoo_fills_the_backbone(
    builder, stages, opts, author, said, tmp_path, caplog
):
    cfg = config(builder, stages, *opts)
    weights = resnet_file(tmp_path / "R.pkl", cfg, author)
    model = build_model(cfg)
    StrictCheckpointer(model, cfg=cfg).load(str(tmp_path / "R.pkl"))
    backbone = model.student.backbone
    resnet = getattr(backbone, "bottom_up", backbone)
    for key, tensor in resnet.state_dict().items():
        torch.testing.assert_close(tensor, weights[key], rtol=0, atol=0)
    told = [r.getMessage() for r in caplog.records if "prepared otherwise" in r.getMessage()]
    assert len(told) == bool(said) and all(part in told[0] for part in said)
    caplog.clear()
    opts = [*opts, "INPUT.FORMAT", "BGR", "MODEL.PIXEL_MEAN", [103.53, 116.28, 123.675],
            "MODEL.PIXEL_STD", [1.0, 1.0, 1.0]]  # fmt: skip
    StrictCheckpointer(model, cfg=config(builder, stages, *opts)).load(str(tmp_path / "R.pkl"))
    assert ("prepared otherwise" in caplog.text) == (author == "torchvision")


@pytest.mark.parametrize(("depth", "problem"), [(34, "it lacks"), (18, "nothing here takes its")])
def test_a_file_of_another_depth_is_refused(depth, problem, tmp_path):
    depths = [18, 34]
    for number in depths:
        cfg = config("build_resnet_backbone", STAGES, *RESNET, "MODEL.RESNETS.DEPTH", number)
        if number == depth:
            model, mine = build_model(cfg), cfg
        else:
            resnet_file(tmp_path / "R.pkl", cfg, "torchvision")
    with pytest.raises(InputError, match=f"another encoder.*{problem}.*MODEL.RESNETS.DEPTH"):
        StrictCheckpointer(model, cfg=mine).load(str(tmp_path / "R.pkl"))


def test_a_vit_s_file_without_relative_positions_fills_it(tmp_path):
    cfg = config("build_vit", LEVELS)
    net = build_model(cfg).student.backbone.net
    weights = {k: torch.randn_like(v) for k, v in net.state_dict().items() if "rel_pos" not in k}
    torch.save({"model": weights}, tmp_path / "mae.pth")
    model = build_model(cfg)
    StrictCheckpointer(model, cfg=cfg).load(str(tmp_path / "mae.pth"))
    state = model.student.backbone.net.state_dict()
    assert all(state[key].equal(tensor) for key, tensor in weights.items())
    torch.save({"model": {"a.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="unknown layout.*a.weight"):
        StrictCheckpointer(model, cfg=cfg).load(str(tmp_path / "other.pth"))
