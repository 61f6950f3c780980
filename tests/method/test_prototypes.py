"""Update rules of the class prototypes."""

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from pppc.method.prototypes import GaussianPrototypes

GOLDEN = REPOSITORY / "tests/golden"
CLASSES, DIM = 4, 3


def make(update_rule, variance="product", momentum=0.9, forgetting=1.0):
    return GaussianPrototypes(CLASSES, DIM, update_rule, variance, momentum, forgetting)


def batch(seed, classes=range(CLASSES - 1)):
    """Embeddings of 2 x 4 x 5 positions; by default the last class does not occur."""
    generator = torch.Generator().manual_seed(seed)
    mean, log_var = torch.randn(2, 2, DIM, 4, 5, generator=generator)
    classes = torch.tensor([*classes, 255])
    label = classes[torch.randint(len(classes), (2, 4, 5), generator=generator)]
    return mean, log_var, label


def pixels_of(mean, log_var, label, index):
    select = label == index
    return mean.movedim(1, -1)[select], log_var.movedim(1, -1)[select]


def product_of_gaussians(mean, log_var):
    """Of pixels: means weighted by precision, and minus the logarithm of the summed precisions."""
    weight = torch.softmax(-log_var, dim=0)
    return (weight * mean).sum(0), -torch.logsumexp(-log_var, dim=0)


@pytest.fixture
def prcl():
    """PRCL's batch, its labels, and the classes that occur."""
    with np.load(GOLDEN / "prcl_prototypes.npz") as arrays:
        golden = {name: torch.from_numpy(array) for name, array in arrays.items()}
    label = golden["label"].where(golden["valid_mask"][:, 0] == 1, 255)
    return golden, label, golden["classes_present"]


def assert_prototypes(prototypes, present, mean, variance):
    torch.testing.assert_close(prototypes.mean[present], mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(prototypes.log_var[present], variance, rtol=1e-4, atol=1e-6)


def test_batch_product_of_published_prcl(prcl):
    golden, label, present = prcl
    prototypes = GaussianPrototypes(5, 8, "batch", "product", momentum=0.0, forgetting=0.0)
    prototypes.update(golden["mu"], golden["var"].log(), label)
    assert prototypes.seen.nonzero()[:, 0].tolist() == present.tolist()
    prototypes.log_var.exp_()
    assert_prototypes(prototypes, present, golden["proto_mu"], golden["proto_var"])


def test_published_convention_is_prcl_s_product_of_the_outputs_averaged_and_kept_as_it_is(prcl):
    golden, label, present = prcl
    prototypes = GaussianPrototypes(5, 8, "ema", momentum=0.9, convention="published")
    prototypes.update(golden["mu"], golden["var"], label)
    assert_prototypes(prototypes, present, golden["proto_mu"], golden["proto_var"])
    # Of twice the variances the same means come, of twice the variance; it counts a half.
    prototypes.update(golden["mu"], 2 * golden["var"], label)
    assert_prototypes(prototypes, present, golden["proto_mu"], 1.5 * golden["proto_var"])


def test_labels_are_resized_to_the_embedding():
    mean, log_var, label = batch(0)
    coarse, fine = make("batch"), make("batch")
    coarse.update(mean, log_var, label)
    fine.update(mean, log_var, label.repeat_interleave(8, 1).repeat_interleave(6, 2))
    torch.testing.assert_close(fine.state_dict(), coarse.state_dict())


def test_posterior_of_batches_is_that_of_all_pixels():
    """The product of Gaussians over both batches' pixels, whatever the grouping."""
    batches = [batch(0), batch(1)]
    prototypes = make("posterior")
    for one in batches:
        prototypes.update(*one)
    at_once = make("posterior")
    at_once.update(*(torch.cat(parts) for parts in zip(*batches)))
    torch.testing.assert_close(at_once.mean, prototypes.mean)
    torch.testing.assert_close(at_once.log_var, prototypes.log_var)
    for index in range(CLASSES - 1):
        mean, log_var = zip(*(pixels_of(*one, index) for one in batches))
        expected = product_of_gaussians(torch.cat(mean), torch.cat(log_var))
        actual = prototypes.mean[index], prototypes.log_var[index]
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_posterior_forgets():
    prototypes = make("posterior", variance="count_normalized", forgetting=0.5)
    precisions, counts = torch.zeros(DIM), 0
    for seed in range(3):
        one = batch(seed, classes=[1])
        prototypes.update(*one)
        _, log_var = pixels_of(*one, 1)
        precisions = 0.5 * precisions + (-log_var).exp().sum(0)
        counts = 0.5 * counts + len(log_var)
    torch.testing.assert_close(prototypes.log_var[1].exp(), counts / precisions)


def test_ema_averages_plainly_and_then_with_momentum():
    """Weights 1, 1/2, 1/3 of the first three updates; from the fourth on 1 - momentum."""
    momentum = 0.7
    prototypes = make("ema", momentum=momentum)
    expected_mean = expected_var = torch.zeros(DIM)
    for seed, weight in enumerate([1, 1 / 2, 1 / 3, 0.3, 0.3]):
        one = batch(seed)
        prototypes.update(*one)
        mean, log_var = product_of_gaussians(*pixels_of(*one, 2))
        expected_mean = (1 - weight) * expected_mean + weight * mean
        expected_var = (1 - weight) * expected_var + weight * log_var.exp()
    assert prototypes.num_updates.tolist() == [5, 5, 5, 0]
    torch.testing.assert_close(prototypes.mean[2], expected_mean)
    torch.testing.assert_close(prototypes.log_var[2].exp(), expected_var)


def test_count_normalized_variance_does_not_shrink_with_the_number_of_pixels():
    one = batch(0)
    for variance, shift in (("count_normalized", 0.0), ("product", -np.log(10))):
        once, ten_times = make("batch", variance), make("batch", variance)
        once.update(*one)
        ten_times.update(*(torch.cat([part] * 10) for part in one))
        torch.testing.assert_close(ten_times.mean, once.mean)
        seen = once.seen
        torch.testing.assert_close(ten_times.log_var[seen], once.log_var[seen] + shift)


@pytest.mark.parametrize("update_rule", ["ema", "posterior", "batch"])
def test_absent_classes_stay_and_state_survives_saving(update_rule):
    prototypes = make(update_rule, momentum=0.5, forgetting=0.9)
    prototypes.update(*batch(0))
    resumed = make(update_rule, momentum=0.5, forgetting=0.9)
    resumed.load_state_dict(prototypes.state_dict())
    before = prototypes.mean[2].clone(), prototypes.log_var[2].clone()

    for one in (prototypes, resumed):
        one.update(*batch(1, classes=[0, 3]))
    assert torch.equal(prototypes.mean[2], before[0])
    assert torch.equal(prototypes.log_var[2], before[1])
    assert prototypes.seen.tolist() == [True] * 4
    torch.testing.assert_close(resumed.state_dict(), prototypes.state_dict(), rtol=0, atol=0)


def test_batch_without_labels_changes_nothing():
    prototypes = make("ema")
    mean, log_var, label = batch(0)
    prototypes.update(mean, log_var, torch.full_like(label, 255))
    assert not prototypes.seen.any()
    assert torch.equal(prototypes.mean, torch.zeros(CLASSES, DIM))


def test_unknown_names_are_rejected():
    for name in ("update_rule", "variance", "convention"):
        with pytest.raises(ValueError, match=f"{name} is 'sum'"):
            GaussianPrototypes(CLASSES, DIM, **{name: "sum"})
