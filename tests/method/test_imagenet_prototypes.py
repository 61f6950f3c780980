"""Class means in a frozen encoder, against loops over positions."""

import numpy as np
import torch
from pppc.method.imagenet_prototypes import ImageNetPrototypes
from torch.nn.functional import avg_pool2d, interpolate


def encoder(image):
    """Two maps of half the image's sides, the second one far longer than the first."""
    half = avg_pool2d(image, 2)
    return half, torch.cat([50 * half.square(), 20 * half], 1)


def unit(values):
    return values / np.linalg.norm(values)


def test_scores_are_cosines_with_the_classes_mean_directions():
    draw = np.random.default_rng(0)
    images, label = draw.uniform(0, 1, (2, 3, 8, 6)), draw.choice([0, 2, 255], (2, 8, 6))
    batch = torch.tensor(images, dtype=torch.float32), torch.tensor(label)
    prototypes = ImageNetPrototypes(encoder, 4, 9, temperature=0.1)
    assert (prototypes.scores(batch[0]) == 0).all()  # no class had a pixel
    prototypes.update(*batch)
    found = prototypes.scores(batch[0]).numpy()

    def feature(n, i, j):
        pixel = images[n, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2))
        return unit(
            np.concatenate([unit(pixel), unit(np.concatenate([50 * pixel**2, 20 * pixel]))])
        )

    positions = [(n, i, j) for n in range(2) for i in range(4) for j in range(3)]
    means = {
        c: unit(sum(feature(n, i, j) for n, i, j in positions if label[n, 2 * i, 2 * j] == c))
        for c in (0, 2)
    }
    for n, i, j in positions:
        cosines = {c: feature(n, i, j) @ mean for c, mean in means.items()}
        # Classes that no pixel had are as near as the others on average.
        other = np.mean(list(cosines.values()))
        expected = [cosines[0], other, cosines[2], other]
        np.testing.assert_allclose(found[n, :, i, j], np.array(expected) / 0.1, rtol=1e-4)


def test_coarser_maps_are_resized_to_the_finest_one():
    image = torch.rand(1, 3, 8, 8)

    def resized(given):
        coarse = avg_pool2d(given, 4)
        coarse = coarse / coarse.norm(dim=1, keepdim=True)
        return given, interpolate(coarse, (8, 8), mode="bilinear", align_corners=False)

    label = torch.randint(2, (1, 8, 8))
    ours, reference = (
        ImageNetPrototypes(encoder, 2, 6)
        for encoder in (lambda given: (given, avg_pool2d(given, 4)), resized)
    )
    for prototypes in (ours, reference):
        prototypes.update(image, label)
    # Interpolated directions are a little shorter than 1, and of that length they are resized.
    torch.testing.assert_close(ours.scores(image), reference.scores(image), rtol=0.05, atol=0)


def test_batches_add_up_over_steps_and_processes():
    image, label = torch.rand(2, 3, 8, 8), torch.randint(3, (2, 8, 8))
    totals = (torch.clone, torch.clone, lambda sums: 2 * sums)
    once, twice, shared = (ImageNetPrototypes(encoder, 3, 9, total=total) for total in totals)
    once.update(image, label)
    shared.update(image, label)
    for part in (0, 1):
        twice.update(image[part : part + 1], label[part : part + 1])
    torch.testing.assert_close(once.sums, twice.sums)
    torch.testing.assert_close(shared.sums, 2 * once.sums)
