"""Options that save time or memory change what they say, and nothing else."""

import gc
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from PIL import Image
from pppc.data.labels import LabelReader
from pppc.data.mapper import SourceMapper, TargetMapper
from pppc.engine.solver import build_optimizer
from pppc.method.ambiguity_crop import AmbiguityCrop
from pppc.method.prototypes import GaussianPrototypes
from pppc.pixel_batch import PixelBatch
from tiny_run import SMALL, default_config, loop_of
from torch.utils._python_dispatch import TorchDispatchMode

NETWORKS = {
    "MiT": ["MODEL.TIMM.NAME", "mit_b0", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 16],
    "ResNet": ["MODEL.TIMM.NAME", "resnet26", "MODEL.TIMM.OUTPUT_STRIDE", 8,
               "MODEL.TIMM.DROP_PATH_RATE", 0.0, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 16,
               "MODEL.SEM_SEG_HEAD.NAME", "SeparableDeepLabV3PlusHead",
               "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["stage1", "stage4"]],
}  # fmt: skip


def pass_of(network: str, what: str, *opts: object) -> tuple[dict[str, torch.Tensor], int]:
    """Losses, gradients and state after a pass of the student, and the bytes alive before backward."""
    cfg = default_config(
        "MODEL.DEVICE", "cpu", "DATASETS.TRAIN", ("gta_train",),
        "MODEL.PROBABILISTIC_HEAD.DIM", 8, "MODEL.RECOMPUTE", what,
        "MODEL.PROBABILISTIC_HEAD.MID_CHANNELS", 8, *NETWORKS[network], *opts,
    )  # fmt: skip
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


@pytest.mark.parametrize(("network", "half_precision"), [("MiT", True), ("ResNet", False)])
def test_what_is_computed_again_changes_memory_alone(network, half_precision):
    amp = ("SOLVER.AMP.ENABLED", half_precision)
    plain, kept = pass_of(network, "none", *amp)
    again, kept_if_again = pass_of(network, "encoder", *amp)
    assert plain.keys() == again.keys()
    for name, value in plain.items():
        # BatchNorm's running statistics see the batch again.
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(value, again[name]), name
    assert kept_if_again < 0.97 * kept


def test_student_and_teacher_are_compiled_each_as_one_graph():
    opts = (
        *SMALL,
        "MODEL.COMPILE",
        "default",
        "SOLVER.AMP.ENABLED",
        True,
        "DATASETS.TRAIN",
        ("gta_train",),
    )
    loop = loop_of(default_config(*opts))
    for network in (loop.segmentor.student, loop.segmentor.teacher):
        assert network._compiled_call_impl is not None
    image = 255 * torch.rand(2, 3, 64, 96)
    found = torch._dynamo.explain(loop.segmentor.student.forward)(image, embedding=True)
    assert (found.graph_count, found.graph_break_count) == (1, 0)
    torch._dynamo.reset()


def test_the_teacher_s_weights_are_cast_to_half_precision_once_a_step():
    opts = (
        *SMALL, "SOLVER.AMP.ENABLED", True, "DATASETS.TRAIN", ("gta_train",), "INPUT.CROP.SIZE", (32, 48),
        "PPPC.CONTRAST.START_ITER", 0, "SEED", 0,
    )  # fmt: skip
    image = torch.randint(256, (2, 3, 32, 96), dtype=torch.uint8)
    pair = (
        PixelBatch(image[..., :48], torch.randint(19, (2, 32, 48), dtype=torch.uint8)),
        PixelBatch(image),
    )
    loop = loop_of(default_config(*opts), [pair])
    casts = Casts(loop.segmentor.teacher.parameters())
    with casts:
        loop.train(4000, 4001)
    # On the whole target, its crop and the source.
    assert len(casts.found) > 20 and set(casts.found.values()) == {1}
    assert all(parameter.grad is None for parameter in loop.segmentor.teacher.parameters())


class Casts(TorchDispatchMode):
    """How often each of some parameters becomes another type."""

    def __init__(self, parameters: Iterable[torch.Tensor]):
        super().__init__()
        self.of = {id(parameter) for parameter in parameters}
        self.found: Counter[int] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ == "_to_copy" and id(args[0]) in self.of:
            self.found[id(args[0])] += 1
        return function(*args, **(kwargs or {}))


def test_the_crop_is_chosen_on_a_smaller_image_and_cut_from_the_whole_one():
    opts = (
        "INPUT.CROP.SIZE",
        [64, 64],
        "DATASETS.TRAIN",
        ("gta_train",),
        "PPPC.AMBIGUITY_CROP.SCALE",
        0.5,
    )
    loop = loop_of(default_config(*SMALL, *opts))
    seen = []
    loop.segmentor.teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    image = 255 * torch.rand(2, 3, 128, 256)
    loop.random.generator = torch.Generator().manual_seed(0)
    with EventStorage():
        crop = loop.crop_target(PixelBatch(image)).image
    assert seen == [(2, 3, 64, 128)] and crop.shape == (2, 3, 64, 64)
    windows = image.unfold(2, 64, 1).unfold(3, 64, 1)
    for whole, cut in zip(windows, crop):
        assert (whole == cut[:, None, None]).flatten(3).all(-1).all(0).any()


def test_the_crop_s_labels_are_cut_from_those_of_the_whole_image():
    opts = (
        *SMALL, "INPUT.CROP.SIZE", [64, 64], "DATASETS.TRAIN", ("gta_train",),
        "PPPC.AMBIGUITY_CROP.REUSE_LABELS", True,
    )  # fmt: skip
    loop = loop_of(default_config(*opts))
    torch.nn.init.normal_(loop.segmentor.teacher.sem_seg_head.classifier[1].weight)
    passes = []
    loop.segmentor.teacher.register_forward_pre_hook(lambda *_: passes.append(1))
    image = 255 * torch.rand(1, 3, 128, 256)
    loop.random.generator = torch.Generator().manual_seed(0)
    with EventStorage():
        target = loop.crop_target(PixelBatch(image))
        labeled = loop.label_target(target)
    assert len(passes) == 1 and labeled.probabilities is None
    whole = loop.pseudo_labeler.probabilities(loop.teacher_scores, image).argmax(1)
    windows = whole.unfold(1, 64, 1).unfold(2, 64, 1)[0]
    assert (windows == labeled.label).flatten(2).all(-1).any()


def test_a_class_without_a_prototype_is_not_the_most_ambiguous_one():
    prototypes = GaussianPrototypes(19, 4, "ema", "product", 0.999, 1.0)
    prototypes.num_updates[:3] = 1
    prototypes.log_var[:3] = -7.0  # of classes not seen: 0
    weights = AmbiguityCrop((64, 64), temperature=1.0).class_weights(prototypes)
    torch.testing.assert_close(weights, torch.tensor([1 / 3] * 3 + [0.0] * 16))


def steps_of(clip_type: str, factor: float = 1.0) -> torch.Tensor:
    """What a step of plain gradient descent with rate 1 adds to the parameters.

    The gradient of each is its index over 100; ``factor`` scales the loss, as for float16.
    """
    cfg = default_config(
        "SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
        clip_type, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.5, "SOLVER.BASE_LR", 1.0,
        "SOLVER.OPTIMIZER", "SGD", "SOLVER.MOMENTUM", 0.0, "SOLVER.HEAD_LR_FACTOR", 1.0,
        "SOLVER.WEIGHT_DECAY", 0.0,
    )  # fmt: skip
    segmentor = build_model(default_config(*SMALL))
    optimizer = build_optimizer(cfg, segmentor)
    scaler = torch.amp.GradScaler("cpu", init_scale=factor, enabled=factor > 1)
    parameters = list(segmentor.student.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    scaler.scale(sum((i / 100 * p).sum() for i, p in enumerate(parameters))).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    return torch.cat([(old - new).detach().flatten() for old, new in zip(before, parameters)])


def test_gradients_are_clipped_one_by_one_or_as_one_vector():
    sizes = [
        parameter.numel() for parameter in build_model(default_config(*SMALL)).student.parameters()
    ]
    gradients = [torch.full((size,), i / 100) for i, size in enumerate(sizes)]
    whole = torch.cat(gradients)
    close = {"rtol": 1e-3, "atol": 1e-6}
    torch.testing.assert_close(steps_of("value"), whole.clamp(max=0.5), **close)
    each = [g * (0.5 / (g.norm() + 1e-6)).clamp(max=1) for g in gradients]
    torch.testing.assert_close(steps_of("norm"), torch.cat(each), **close)
    expected = 0.5 * whole / whole.norm()
    torch.testing.assert_close(steps_of("full_model"), expected, **close)
    torch.testing.assert_close(steps_of("full_model", factor=2.0**10), expected, **close)


@pytest.mark.parametrize(
    ("flip", "expected"),
    [("none", {(1, 2)}), ("horizontal", {(1, 2), (2, 1)}), ("vertical", {(1, 2), (3, 4)})],
)
def test_images_are_flipped_as_the_configuration_says(flip, expected, tmp_path):
    """The image's corners are 1 2 above 3 4, of the label's also; looked at is the upper edge."""
    corners = np.kron(np.array([[1, 2], [3, 4]], np.uint8), np.ones((32, 32), np.uint8))
    Image.fromarray(np.repeat(corners[:, :, None], 3, axis=2)).save(tmp_path / "image.png")
    Image.fromarray(corners).save(tmp_path / "label.png")
    record = {name: str(tmp_path / file) for name, file in
              (("file_name", "image.png"), ("sem_seg_file_name", "label.png"))}  # fmt: skip
    cfg = default_config(
        "INPUT.RANDOM_FLIP", flip, "INPUT.CROP.SIZE", [64, 64], "INPUT.MIN_SIZE_TRAIN",
        (64,), "INPUT.TARGET.MIN_SIZE", 64,
    )  # fmt: skip
    source = SourceMapper(cfg, LabelReader("gta", train_ids=True))
    target = TargetMapper(cfg)
    seen = set()
    for seed in range(12):
        sample = source(record, None, seed)
        seen.add(tuple(sample["label"][0, [0, -1]].tolist()))
        assert torch.equal(sample["image"][0].long(), sample["label"].long())
        seen.add(tuple(target(record, None, seed)["image"][0, 0, [0, -1]].long().tolist()))
    assert seen == expected
