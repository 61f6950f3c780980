"""Detectron2's parts in this project, and this project's in Detectron2."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.engine import SimpleTrainer
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from pppc.modeling.decode_heads import SegFormerHead
from pppc.modeling.meta_arch import PPPCSegmentor
from pppc.modeling.network import SegmentationNetwork
from pppc.modeling.timm_backbone import TimmBackbone
from pppc.pixel_batch import PixelBatch
from tiny_run import default_config

SMALL = ["MODEL.DEVICE", "cpu", "MODEL.TIMM.NAME", "test_resnet", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32,
         "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5]  # fmt: skip


def labeled(*sizes: tuple[int, int]) -> list[dict]:
    """Detectron2's batch of labeled images of these sizes."""
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator),
            "sem_seg": torch.randint(5, size, generator=generator),
        }
        for size in sizes
    ]


@pytest.mark.parametrize("head", ["DAFormerHead", "SegFormerHead", "ConvSegFormerHead"])
def test_a_head_of_this_project_in_the_segmentor_of_detectron2(head):
    cfg = default_config(
        *SMALL, "MODEL.SEM_SEG_HEAD.NAME", head,
        "MODEL.META_ARCHITECTURE", "SemanticSegmentor",
    )  # fmt: skip
    torch.manual_seed(0)
    model = build_model(cfg)
    batch = labeled((64, 96), (64, 96))
    losses = model(batch)
    losses["loss_sem_seg"].backward()
    # An untrained classifier of small weights finds all classes as probable.
    assert losses["loss_sem_seg"].item() == pytest.approx(torch.tensor(5.0).log().item(), rel=0.05)
    assert model.sem_seg_head.classifier[1].weight.grad.abs().sum() > 0
    # Ignored pixels add nothing.
    torch.manual_seed(1)
    whole = model(batch)["loss_sem_seg"]
    for record in batch:
        record["sem_seg"] = torch.cat([record["sem_seg"], torch.full((32, 96), 255)])
        record["image"] = torch.cat([record["image"], record["image"][:, :32]], dim=1)
    assert model(batch)["loss_sem_seg"].item() == pytest.approx(whole.item(), rel=0.05)
    (output,) = model.eval()([{"image": batch[0]["image"], "height": 50, "width": 70}])
    assert output["sem_seg"].shape == (5, 50, 70)


def test_detectron2_s_trainer_trains_the_student_on_its_own_batches():
    cfg = default_config(
        *SMALL, "PPPC.CONTRAST.ENABLED", False, "PPPC.SELF_TRAINING.ENABLED", False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = build_model(cfg).train()
    batch = labeled((64, 96), (48, 64))  # of two sizes: the smaller is padded with ignored pixels
    losses = []
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    trainer = SimpleTrainer(model, [batch], optimizer)
    trainer.write_metrics = lambda metrics, *_: losses.append(metrics["loss_segmentation"].item())
    trainer._write_metrics = trainer.write_metrics
    trainer.train(0, 1)
    padded = PixelBatch.from_dicts(batch, model.device, 255)
    assert padded.image.shape == (2, 3, 64, 96)
    assert (padded.label[1, 48:] == 255).all() and (padded.label[1, :, 64:] == 255).all()
    torch.testing.assert_close(padded.label[1, :48, :64], batch[1]["sem_seg"])
    for _ in range(20):
        optimizer.zero_grad()
        loss = model(batch)["loss_segmentation"]
        loss.backward()
        optimizer.step()
    assert loss.item() < losses[0]


def test_a_lazy_configuration_builds_the_model():
    shape = {"stage1": ShapeSpec(channels=32, stride=4), "stage2": ShapeSpec(channels=48, stride=8)}
    model = L(PPPCSegmentor)(
        student=L(SegmentationNetwork)(
            backbone=L(TimmBackbone)(name="test_resnet", pretrained=False),
            sem_seg_head=L(SegFormerHead)(input_shape=shape, num_classes=5, channels=16),
            probabilistic_head=None,
            pixel_mean=(123.7, 116.3, 103.5),
            pixel_std=(58.4, 57.1, 57.4),
        ),
        self_training=False,
        teacher_batch_statistics=True,
        prototypes=None,
        contrast=None,
        ignore_label=255,
    )
    segmentor = instantiate(model)
    loss = segmentor(labeled((64, 96)))["loss_segmentation"]
    assert loss.item() == pytest.approx(torch.tensor(5.0).log().item(), rel=0.05)
