"""Blocks that are hidden of an image."""

import pytest
import torch
from pppc.method.masking import Masking, block_mask
from pppc.method.mixing import StrongAugmentation


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("size", "grid"), [((128, 192), (4, 6)), ((100, 70), (3, 2)), ((8, 40), (1, 1))]
)
def test_whole_blocks_of_nearly_their_size_are_hidden(size, grid):
    """By hand: the grid is the number of blocks that fits best, and a pixel has its block's draw."""
    mask = block_mask(torch.zeros(200, 3, *size), 32, 0.7, seeded(3))
    rows, columns = (torch.arange(s) * g // s for s, g in zip(size, grid))
    drawn = torch.rand(200, 1, *grid, generator=seeded(3))[:, 0] < 0.7
    assert mask.dtype == torch.bool and torch.equal(mask, drawn[:, rows][:, :, columns])
    spread = (0.7 * 0.3 / drawn.numel()) ** 0.5
    assert abs(drawn.float().mean() - 0.7) < 4 * spread
    assert not torch.equal(mask[0], mask[1]) or grid == (1, 1)


def test_what_is_hidden_has_the_given_color_and_the_rest_colors_of_its_own():
    image = 255 * torch.rand(4, 3, 64, 64, generator=seeded(0))
    fill = torch.tensor([300.0, 301.0, 302.0]).view(3, 1, 1)
    jitter = StrongAugmentation(jitter_probability=1.0, blur_probability=0.0)
    masked = Masking(jitter, 16)(image, fill, seeded(1))
    hidden = (masked == fill).all(1)
    generator = seeded(1)
    augmented = jitter(image, jitter.draw_gates(generator), generator)
    assert torch.equal(hidden, block_mask(image, 16, 0.7, generator))
    seen = ~hidden[:, None].expand_as(image)
    assert torch.equal(masked[seen], augmented[seen]) and not torch.equal(masked[seen], image[seen])
    assert torch.equal(masked, Masking(jitter, 16)(image, fill, seeded(1)))
    for ratio, share in ((0.0, 0.0), (1.0, 1.0)):
        assert block_mask(image, 16, ratio, seeded(1)).float().mean() == share
