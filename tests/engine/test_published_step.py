"""The whole training step against the authors' own, kept as a golden record.

The record was written by the authors' unmodified code (commit 6259fd7 of
DarlingInTheSV/Probabilistic-Prototypical-Pixel-Contrast, MiT-B0 with their DAFormer decoder and
projector, mmcv's optimizer and schedule) in float64, with Dropout, DropPath and blur off. Weights,
images, labels, prototypes and random draws follow the rules of tests/published_step.py on both sides,
so that it holds nothing but results: crops, pseudo-labels, losses, and of every tensor its norm and its
product with a vector of random numbers. Of each experiment the last step before the contrast begins
and the first with it. Their prototypes' file was never published; in its place stood the convention
"published" of docs/method.md.

Losses alone would not do: the contrast's is ln 19 at any high temperature. Gradients tell.
"""

import numpy as np
import published_step as rules
import pytest
import torch
from conftest import REPOSITORY
from detectron2.engine import HookBase
from detectron2.modeling import build_model
from detectron2.projects.deeplab import build_lr_scheduler
from pppc.checkpoints.layouts import LAYOUTS
from pppc.checkpoints.translation import from_other_layout
from pppc.config.files import load_config
from pppc.engine.adaptation_loop import AdaptationLoop
from pppc.engine.hooks import TeacherUpdate
from pppc.engine.run_hooks import LearningRate
from pppc.engine.solver import build_optimizer
from pppc.pixel_batch import PixelBatch

GOLDEN = np.load(REPOSITORY / "tests/golden/published_step.npz")
NAMES, STATISTICS = GOLDEN["names"].tolist(), GOLDEN["statistics"].tolist()
SHAPES = {
    name: tuple(map(int, shape.split()))
    for name, shape in zip(NAMES + STATISTICS, GOLDEN["shapes"].tolist())
}
TOLERANCE = 1e-6
CASES = {
    "exp1": ("gta_to_cityscapes_pppc_mit_b5", []),
    "exp3": ("cityscapes_to_dark_zurich_pppc_mit_b5", []),
    # The authors' jitter leaves their source image de-normalized.
    "denormalized": (
        "gta_to_cityscapes_pppc_mit_b5",
        ["PPPC.STRONG_AUGMENTATION.DENORMALIZED_SOURCE", True,
         "PPPC.STRONG_AUGMENTATION.JITTER_PROBABILITY", 1.0],
    ),
}  # fmt: skip


def their_name(name: str) -> str:
    return LAYOUTS["daformer"].rename(name)[0]


@pytest.fixture(autouse=True)
def double_precision(monkeypatch):
    """Everything in float64, what the code casts to float32 as well."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def published_draws(monkeypatch):
    """The corners of crops and the classes to paste, as the authors' code draws them; colors stay,
    as they do in the record where the jitter fires."""
    draws = rules.draws()
    randint, randperm = torch.randint, torch.randperm

    def corner(*args, generator=None, **options):
        if generator is None:
            return randint(*args, **options)
        return torch.tensor(draws.randint(args[0]))

    def order(size, generator=None):
        if size == 4:  # of the jitter's changes
            return randperm(size, generator=generator)
        return torch.from_numpy(draws.permutation(size))

    monkeypatch.setattr(torch, "randint", corner)
    monkeypatch.setattr(torch, "randperm", order)
    monkeypatch.setattr("pppc.method.mixing._jitter", lambda image, amounts, order: image)


def loop_of(case: str) -> AdaptationLoop:
    """The loop of the released configuration, its network small and with the weights of the rules."""
    name, options = CASES[case]
    cfg = load_config(
        REPOSITORY / f"configs/{name}.yaml",
        ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.TIMM.NAME", "mit_b0",
         "MODEL.TIMM.DROP_PATH_RATE", 0.0, "MODEL.SEM_SEG_HEAD.DROPOUT", 0.0,
         "MODEL.PROBABILISTIC_HEAD.MID_CHANNELS", 128, "INPUT.CROP.SIZE", list(rules.CROP),
         "PPPC.STRONG_AUGMENTATION.JITTER_PROBABILITY", 0.0,
         "PPPC.STRONG_AUGMENTATION.BLUR_PROBABILITY", 0.0, *options],
    )  # fmt: skip
    if case != "exp3":
        top, bottom = rules.IGNORED_ROWS
        cfg.PPPC.SELF_TRAINING.IGNORE_TOP, cfg.PPPC.SELF_TRAINING.IGNORE_BOTTOM = top, bottom
    model = build_model(cfg).double().train()
    theirs = {
        f"{network}.{name}": torch.from_numpy(weight(name, shape))
        for network, weight in (("model", rules.weight), ("ema_model", rules.teacher_weight))
        for name, shape in SHAPES.items()
    }
    state = from_other_layout(theirs, model.student.state_dict(), "theirs").state
    missing = model.load_state_dict(state, strict=False).missing_keys
    networks = [name for name in missing if name.startswith(("student.", "teacher."))]
    assert all("num_batches" in name for name in networks)
    mean, variance, updates = map(torch.from_numpy, rules.prototypes())
    model.prototypes.mean.copy_(mean)
    model.prototypes.log_var.copy_(variance)
    model.prototypes.num_updates.copy_(updates)
    if case == "exp3":  # theirs are of float32
        model.class_weights.copy_(torch.from_numpy(GOLDEN["class_weight"]))

    def batches():
        for step in range(rules.STEPS):
            batch = {n: torch.from_numpy(v).double() for n, v in rules.batch(step).items()}
            day = batch["day"] if case == "exp3" else None
            yield (
                PixelBatch(batch["source"], batch["label"].long()),
                PixelBatch(batch["target"], day_image=day),
            )

    optimizer = build_optimizer(cfg, model)
    loop = AdaptationLoop.from_config(cfg, model, batches(), optimizer)
    loop.scheduler = build_lr_scheduler(cfg, optimizer)
    loop.register_hooks([*loop.hooks(), LearningRate(optimizer, loop.scheduler)])
    return loop


def summaries(tensors: dict[str, torch.Tensor | None], names: list[str]) -> np.ndarray:
    """Norm and product of each of their tensors, of ours by our names; 0 where there is none."""
    theirs = {their_name(n): t.detach() for n, t in tensors.items() if t is not None}
    return np.array(
        [
            rules.summary(name, theirs[name].numpy()) if name in theirs else (0.0, 0.0)
            for name in names
        ]
    )


def assert_summaries(what: str, actual: np.ndarray, expected: np.ndarray):
    """Differences relative to each tensor's norm."""
    norm = np.maximum(expected[:, :1], 1e-12)
    worst = np.abs((actual - expected) / norm).max(1)
    assert worst.max() < TOLERANCE, (
        f"{what}: {worst.max():.1e} of the norm, tensor {worst.argmax()}"
    )


class Comparison(HookBase):
    """Compares each step with the record's."""

    def __init__(self, loop: AdaptationLoop, case: str):
        self.loop, self.case = loop, case
        self.losses: dict[str, float] = {}
        self.gradients = np.empty(0)
        loop.optimizer.register_step_pre_hook(self.before_optimizer)
        self.backward_pass, loop.backward_pass = loop.backward_pass, self.watched_pass

    def watched_pass(self, *args, **options):
        losses = self.backward_pass(*args, **options)
        self.losses |= {name.removeprefix("loss_"): loss.item() for name, loss in losses.items()}
        return losses

    def before_optimizer(self, *_):
        student = self.loop.segmentor.student
        gradients = {name: parameter.grad for name, parameter in student.named_parameters()}
        self.gradients = summaries(gradients, NAMES)
        self.rates = sorted({group["lr"] for group in self.loop.optimizer.param_groups})

    def before_step(self):
        self.losses.clear()
        self.expected = {
            key.rsplit("/", 1)[1]: GOLDEN[key]
            for key in GOLDEN.files
            if key.startswith(f"{self.case}/{self.trainer.iter - rules.START}/")
        }
        weights = self.loop.ambiguity_crop.class_weights(self.loop.segmentor.prototypes)
        self.close(weights, "crop_weights")

    def close(self, actual, name: str):
        np.testing.assert_allclose(actual, self.expected[name], rtol=TOLERANCE, err_msg=name)

    def after_step(self):
        step, expected, segmentor = (
            self.trainer.iter - rules.START,
            self.expected,
            self.loop.segmentor,
        )
        target, whole = self.loop.record.target, torch.from_numpy(rules.batch(step)["target"])
        for image, uncut, (top, left) in zip(target.image, whole, expected["corners"]):
            height, width = rules.CROP
            assert torch.equal(image, uncut[:, top : top + height, left : left + width].double())
        counts = target.weight > 0
        assert torch.equal(
            target.label[counts], torch.from_numpy(expected["pseudo_label"]).long()[counts]
        )
        self.close(target.weight.max(), "share")
        assert sorted(self.losses) == sorted(expected["loss_names"].tolist())
        self.close([self.losses[name] for name in expected["loss_names"]], "losses")
        self.close(self.rates, "rates")
        assert_summaries(f"gradients of step {step}", self.gradients, expected["gradients"])
        prototypes = [
            rules.summary(name, tensor.numpy())
            for name, tensor in (
                ("mean", segmentor.prototypes.mean), ("variance", segmentor.prototypes.log_var)
            )
        ]  # fmt: skip
        self.close(prototypes, "prototypes")


@pytest.mark.parametrize(("case", "steps"), [("exp1", 2), ("exp3", 2), ("denormalized", 1)])
def test_the_step_is_the_authors(case, steps, published_draws):
    loop = loop_of(case)
    update = next(hook for hook in loop.hooks() if isinstance(hook, TeacherUpdate))
    update.trainer = loop
    update._update(rules.START)  # theirs begins the step with it, ours ended the one before
    loop.register_hooks([Comparison(loop, case)])
    loop.train(rules.START, rules.START + steps)
    student, teacher = loop.segmentor.student.state_dict(), loop.segmentor.teacher.state_dict()
    for what, state, names in (
        ("parameters", student, NAMES),
        ("running_statistics", student, STATISTICS),
        ("teacher", teacher, NAMES),
    ):
        actual = summaries(state, names)
        assert_summaries(f"{what} at the end", actual, GOLDEN[f"{case}/{what}"])


def test_rates_and_decay_of_each_parameter_are_the_authors():
    loop = loop_of("exp1")
    names = {parameter: name for name, parameter in loop.segmentor.student.named_parameters()}
    betas, eps = GOLDEN["betas"][:2].tolist(), GOLDEN["betas"][2]
    rates, decays = {}, {}
    for group in loop.optimizer.param_groups:
        assert list(group["betas"]) == betas and group["eps"] == eps
        for parameter in group["params"]:
            name = their_name(names[parameter])
            rates[name], decays[name] = group["initial_lr"], group["weight_decay"]
    for column, values in enumerate((rates, decays)):
        actual = [values[name] for name in NAMES]
        np.testing.assert_allclose(actual, GOLDEN["groups"][:, column], rtol=1e-12)
