"""The contrast between pixels and prototypes, and its schedule."""

import json

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from pppc.method.contrast import PrototypeContrast, contrast_schedule
from pppc.method.labeled_pixels import LabeledPixels, at_most_per_class, resize_labels

GOLDEN = REPOSITORY / "tests/golden"


@pytest.fixture
def published():
    """Inputs and outputs of the published loss; mean and log-variance want a gradient."""
    with np.load(GOLDEN / "contrast_loss.npz") as arrays:
        golden = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    golden["label"] = golden["label_full"][:, 0].long()
    golden["mu"].requires_grad_()
    golden["sigma"].requires_grad_()
    return golden


def losses_of(golden, temperature, label=None, seen=None):
    return PrototypeContrast(temperature, kl_weight=1e-6)(
        golden["mu"],
        golden["sigma"],
        golden["label"] if label is None else label,
        golden["proto_mu"],
        golden["proto_sigma"],
        seen,
    )


def assert_gradient(actual, expected):
    """Relative to the largest: at temperature 100 gradients are near 1e-7."""
    assert expected.abs().max() > 0
    assert (actual - expected).abs().max() <= 1e-3 * expected.abs().max()


def test_labels_resized_as_published(published):
    resized = resize_labels(published["label"], (6, 8))
    torch.testing.assert_close(resized, published["label_at_feat"][:, 0].long())


@pytest.mark.parametrize(("temperature", "name"), [(100.0, "100"), (1.0, "1"), (0.01, "0p01")])
def test_losses_and_gradients_of_published_code(published, temperature, name):
    losses = losses_of(published, temperature)
    for loss, key in (("loss_contrast", "contrast"), ("loss_kl", "kl")):
        torch.testing.assert_close(
            losses[loss], published[f"{key}_temp{name}"], rtol=1e-4, atol=1e-6
        )
    total = published["scale"].float() * sum(losses.values())
    torch.testing.assert_close(total, published[f"loss_temp{name}"], rtol=1e-4, atol=1e-6)

    inputs = [published["mu"], published["sigma"]]
    mean, log_var = (tensor.detach() for tensor in inputs)
    labeled = published["label_at_feat"] != 255
    kl_expected = [1e-6 * mean * labeled, 0.5e-6 * (log_var.exp() - 1) * labeled]
    contrast = torch.autograd.grad(losses["loss_contrast"], inputs, retain_graph=True)
    kl = torch.autograd.grad(losses["loss_kl"], inputs)
    for index, key in enumerate(("mu", "sigma")):
        both = published[f"grad_{key}_temp{name}"] / published["scale"].float()
        assert_gradient(kl[index], kl_expected[index])
        assert_gradient(contrast[index], both - kl_expected[index])


def test_divergence_of_published_code():
    golden = np.load(GOLDEN / "kl_reg.npz")
    mean, log_var = (
        torch.from_numpy(golden[key]).T.reshape(1, 16, 3, 4) for key in ("mu", "logvar")
    )
    contrast = PrototypeContrast(temperature=1.0, kl_weight=1.0)
    losses = contrast(
        mean, log_var, torch.zeros(1, 3, 4).long(), torch.ones(2, 16), torch.zeros(2, 16)
    )
    np.testing.assert_allclose(losses["loss_kl"], golden["kl_sum"], rtol=1e-4)


def test_mean_divergence_does_not_grow_with_pixels_images_and_dimensions():
    mean, log_var = torch.randn(2, 1, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(1, 3, 5).long()
    label[0, 0, 0] = 255

    def kl(reduction, *repeats):
        contrast = PrototypeContrast(kl_weight=2.0, kl_reduction=reduction)
        dim = 4 * (repeats[1] if repeats else 1)
        embedding = [part.repeat(*repeats) if repeats else part for part in (mean, log_var)]
        labels = label.repeat(repeats[0], 1, repeats[3]) if repeats else label
        return contrast(*embedding, labels, torch.ones(2, dim), torch.zeros(2, dim))["loss_kl"]

    torch.testing.assert_close(kl("mean"), kl("sum") / (14 * 4))
    torch.testing.assert_close(kl("mean", 2, 3, 1, 4), kl("mean"))
    with pytest.raises(ValueError, match="kl_reduction is 'none'"):
        kl("none")


def test_every_class_weighs_the_same():
    """Pixels of one class and of another, then the first ones again: the loss does not change."""
    generator = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(2, 1, 4, 1, 2, generator=generator)
    prototypes = torch.randn(2, 3, 4, generator=generator)
    contrast = PrototypeContrast(temperature=0.01, kl_weight=0.0)
    label = torch.tensor([[[0, 2]]])
    once = contrast(mean, log_var, label, *prototypes)
    often = contrast(
        mean[..., [0, 1, 0, 0]], log_var[..., [0, 1, 0, 0]], label[..., [0, 1, 0, 0]], *prototypes
    )
    torch.testing.assert_close(often["loss_contrast"], once["loss_contrast"])


def test_classes_not_seen_take_no_part(published):
    """As if neither their prototypes nor their pixels existed."""
    seen = torch.ones(19, dtype=torch.bool)
    seen[[0, 7, 18]] = False
    label = published["label"]
    assert (label == 7).any()
    losses = losses_of(published, 0.01, seen=seen)

    without = label.masked_fill((label < 255) & ~seen[label.clamp(max=18)], 255)
    renumbered = torch.where(without == 255, 255, seen.cumsum(0)[without.clamp(max=18)] - 1)
    for key in ("proto_mu", "proto_sigma"):
        published[key] = published[key][seen]
    expected = losses_of(published, 0.01, label=renumbered)
    torch.testing.assert_close(losses, expected)


def test_prototypes_get_no_gradient(published):
    published["proto_mu"].requires_grad_()
    sum(losses_of(published, 1.0).values()).backward()
    assert published["proto_mu"].grad is None


@pytest.mark.parametrize("nothing", ["labeled", "seen"])
def test_no_pixel_gives_zero_loss_and_zero_gradient(published, nothing):
    label = torch.full((2, 48, 64), 255) if nothing == "labeled" else published["label"]
    seen = torch.full((19,), nothing == "labeled")
    losses = losses_of(published, 100.0, label, seen)
    sum(losses.values()).backward()
    assert [loss.item() for loss in losses.values()] == [0, 0]
    for key in ("mu", "sigma"):
        assert torch.count_nonzero(published[key].grad) == 0


@pytest.mark.parametrize(("run", "multiplier"), [("pppc", -1.0), ("pppc_dark", -10.0)])
def test_schedule_of_published_code(run, multiplier):
    golden = json.loads((GOLDEN / "rampdown.json").read_text())[run]
    for iteration, expected in golden.items():
        scale = contrast_schedule(int(iteration), 40000, 0, multiplier)
        assert scale == pytest.approx(expected, rel=1e-9)


def test_schedule_starts_late_and_multiplier_zero_is_constant():
    ramp = [contrast_schedule(t, 10, 4, -1.0) for t in range(10)]
    assert [scale > 0 for scale in ramp] == [False] * 4 + [True] * 5 + [False]
    assert [contrast_schedule(t, 10, 4, 0.0) for t in range(10)] == [0.0] * 4 + [1.0] * 6


def test_at_most_so_many_pixels_of_each_class_each_as_likely_as_another():
    label = torch.tensor([0] * 3 + [2] * 7 + [5] * 1 + [0] * 3)
    pixels = LabeledPixels(torch.arange(14.0)[:, None], torch.zeros(14, 1), label)
    drawn = torch.zeros(14)
    torch.manual_seed(0)
    for _ in range(500):
        chosen = at_most_per_class(pixels, 4, num_classes=6)
        assert torch.bincount(chosen.label).tolist() == [4, 0, 4, 0, 0, 1, 4 * 6 - 9]
        taken = chosen.label < 6
        index = chosen.mean[taken, 0].long()
        assert len(index.unique()) == len(index) and torch.equal(label[index], chosen.label[taken])
        drawn[index] += 1
    share = torch.tensor([4 / 6] * 3 + [4 / 7] * 7 + [1.0] + [4 / 6] * 3)
    assert (drawn / 500 - share).abs().max() < 0.1


def test_sampled_pixels_alone_get_a_gradient(published):
    contrast = PrototypeContrast(0.01, 1e-6, max_pixels_per_class=1)
    losses = contrast(
        published["mu"], published["sigma"], published["label"], published["proto_mu"],
        published["proto_sigma"],
    )  # fmt: skip
    sum(losses.values()).backward()
    touched = (published["mu"].grad != 0).any(dim=1)
    classes = published["label_at_feat"][:, 0][touched]
    assert sorted(classes.tolist()) == sorted(
        set(published["label_at_feat"].unique().tolist()) - {255}
    )


def test_of_several_processes_each_draws_its_share_of_the_pixels(published):
    contrast = PrototypeContrast(
        0.01, 1e-6, max_pixels_per_class=4, processes=2, total=lambda counts: 2 * counts
    )
    contrast(
        published["mu"], published["sigma"], published["label"], published["proto_mu"],
        published["proto_sigma"],
    )["loss_kl"].backward()  # fmt: skip
    touched = (published["mu"].grad != 0).any(dim=1)
    label = published["label_at_feat"][:, 0]
    classes, available = label[label != 255].unique(return_counts=True)
    drawn = [int((label[touched] == c).sum()) for c in classes]
    assert drawn == available.clamp(max=2).tolist() and max(drawn) == 2


def test_unknown_score_is_an_error():
    with pytest.raises(ValueError, match=r"score is 'euclidean': use one of .*cosine"):
        PrototypeContrast(1.0, 0.0, score="euclidean")
