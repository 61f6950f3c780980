"""ClassMix and strong augmentation."""

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from conftest import REPOSITORY
from pppc.method.mixing import (
    BLUR_SIGMA,
    Gates,
    StrongAugmentation,
    _jitter,
    box_mix_mask,
    class_mix,
    class_mix_mask,
)

GOLDEN = REPOSITORY / "tests/golden"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=3):
    return 255 * torch.rand(count, 3, 40, 48, generator=seeded())


def test_mix_of_published_code():
    golden = {
        name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "classmix.npz").items()
    }
    label, mask = golden["label_src"], golden["mask"]
    ones = torch.ones_like(golden["weight_tgt"])
    for a, b, expected in (
        (golden["src"], golden["tgt"], golden["mixed_img"]),
        (label, golden["label_tgt"], golden["mixed_label"]),
        (ones, golden["weight_tgt"], golden["mixed_weight"]),
    ):
        mixed = class_mix(a, b, mask)
        assert mixed.shape == a.shape
        assert torch.equal(mixed, expected.reshape(a.shape))


def test_mix_of_batches_takes_each_image_by_its_own_mask():
    mask = torch.rand(3, 4, 5, generator=seeded()) < 0.5
    for shape in ((3, 2, 4, 5), (3, 4, 5)):
        a, b = torch.randn(2, *shape, generator=seeded(1))
        expected = torch.stack([torch.where(m, x, y) for m, x, y in zip(mask, a, b)])
        for form in (mask, mask[:, None], mask.long()):
            assert torch.equal(class_mix(a, b, form), expected)


def test_mask_is_half_of_the_batchs_classes_drawn_for_each_image():
    """Every image shows all five of the batch's values, the ignore label among them."""
    values = torch.tensor([0, 3, 4, 9, 255])
    label = values[torch.arange(6 * 4 * 10).view(6, 4, 10) % 5]
    mask = class_mix_mask(label, seeded())
    drawn = [frozenset(one[m].unique().tolist()) for one, m in zip(label, mask)]
    assert mask.dtype == torch.bool
    assert all(len(classes) == 3 for classes in drawn)
    assert len(set(drawn)) > 1
    assert frozenset().union(*drawn) == frozenset(values.tolist())
    for one, m, classes in zip(label, mask, drawn):
        assert torch.equal(m, sum(one == value for value in classes).bool())
    assert torch.equal(mask, class_mix_mask(label, seeded()))


def test_boxes_are_of_half_an_image_and_anywhere():
    mask = box_mix_mask(torch.zeros(400, 33, 40, dtype=torch.long), seeded())
    for one in mask:
        assert one.any(1).sum() * one.any(0).sum() == one.sum()  # a box
    shares = mask.float().mean((1, 2))
    assert shares.min() > 0.45 and shares.max() <= 0.5
    assert mask.any(0).all()


def test_classes_come_from_the_whole_batch():
    """One class in one image, three in the other: half of four, present in the image or not."""
    label = torch.stack([torch.zeros(3, 1), torch.arange(1, 4)[:, None]]).long()
    generator = seeded()
    shares = torch.stack(
        [class_mix_mask(label, generator).float().mean(dim=(1, 2)) for _ in range(200)]
    )
    torch.testing.assert_close(shares.mean(dim=0), torch.tensor([0.5, 0.5]), rtol=0, atol=0.12)


@pytest.mark.parametrize("gates", [Gates(True, False), Gates(False, True), Gates(True, True)])
def test_strong_augmentation_returns_new_images_in_range(gates):
    image = images()
    before = image.clone()
    augmented = StrongAugmentation()(image, gates, seeded())
    assert torch.equal(image, before)
    assert augmented.shape == image.shape
    assert 0 <= augmented.min() and augmented.max() <= 255
    assert (augmented - image).abs().mean() > 1
    assert torch.equal(augmented, StrongAugmentation()(image, gates, seeded()))


def test_closed_gates_change_nothing():
    image = images()
    augmented = StrongAugmentation()(image, Gates(False, False), seeded())
    assert torch.equal(augmented, image)
    assert augmented.data_ptr() != image.data_ptr()


def test_gates_open_as_often_as_asked():
    augmentation, generator = StrongAugmentation(0.2, 0.8, 0.5), seeded()
    gates = torch.tensor([augmentation.draw_gates(generator) for _ in range(2000)]).float()
    torch.testing.assert_close(gates.mean(0), torch.tensor([0.8, 0.5]), rtol=0, atol=0.05)


def test_jitter_is_drawn_for_each_image_and_grows_with_strength():
    image = images(1).repeat(2, 1, 1, 1)
    jitter = Gates(True, False)
    weak = StrongAugmentation(jitter_strength=0.02)(image, jitter, seeded())
    strong = StrongAugmentation(jitter_strength=0.2)(image, jitter, seeded())
    assert not torch.equal(strong[0], strong[1])
    assert (weak - image).abs().mean() < 0.5 * (strong - image).abs().mean()
    none = StrongAugmentation(jitter_strength=0.0)(image, jitter, seeded())
    torch.testing.assert_close(none, image, rtol=0, atol=0.01)


def test_jitter_is_that_of_kornia_0_5_8():
    """One change at a time on gray, dark, black, white and saturated pixels; then all of them, on
    two images with amounts of their own."""
    golden = {
        name: torch.from_numpy(array)
        for name, array in np.load(GOLDEN / "color_jitter.npz").items()
    }
    image = golden["image"]
    for index, change in enumerate(("brightness", "contrast", "saturation", "hue")):
        for factor in (0.8, 0.95, 1.1, 1.2):
            amounts = [0.0] * 4
            amounts[index] = factor - 1
            changed = _jitter(image, amounts, [index])
            expected = golden[f"{change}_{factor}"]
            torch.testing.assert_close(changed, expected, rtol=0, atol=1e-5, msg=change)
    for one, amounts, expected in zip(
        (image, image.flip(1)), golden["amounts"].tolist(), golden["jittered"]
    ):
        jittered = _jitter(one, amounts, golden["order"].tolist())
        torch.testing.assert_close(jittered, expected, rtol=0, atol=1e-5)


def test_colors_of_bgr_images_change_as_those_of_rgb():
    gates = Gates(jitter=True, blur=True)
    rgb = StrongAugmentation()(images(), gates, seeded())
    bgr = StrongAugmentation(image_format="BGR")(images().flip(1), gates, seeded())
    torch.testing.assert_close(bgr.flip(1), rgb)


def test_blur_equals_one_with_the_published_kernel():
    """63 pixels wide, as it is at 640; the width of the Gaussian is the generator's first draw."""
    image = 255 * torch.rand(1, 3, 80, 80, generator=seeded(3))
    blurred = StrongAugmentation()(image, Gates(False, True), seeded(7))
    low, high = BLUR_SIGMA
    sigma = low + (high - low) * torch.rand((), generator=seeded(7)).item()
    torch.testing.assert_close(blurred, TF.gaussian_blur(image, 63, sigma), rtol=0, atol=1e-2)
