"""What makes up for how frequent classes are: weights in the loss, and priors of the scores."""

import torch
from torch import Tensor


def log_frequencies(frequencies: Tensor) -> Tensor:
    """Logarithm of each class's share, for the scores (Menon et al., arXiv 2007.07314).

    Times ``tau`` it is subtracted from the scores in prediction (prior correction), which divides the
    probabilities by the shares to the power tau, or added to them in training (logit adjustment).

    Args:
        frequencies: ``(C,)`` shares or counts of pixels, 0 or more. A class without a pixel gets 0, as
            if it were everywhere: nothing makes up for what was never trained.

    Examples:
        >>> log_frequencies(torch.tensor([6.0, 3.0, 1.0, 0.0]))
        tensor([-0.5108, -1.2040, -2.3026,  0.0000])
    """
    shares = frequencies / frequencies.sum()
    return shares.where(shares > 0, 1).log()


def log_frequency_class_weights(frequencies: Tensor, spread: float) -> Tensor:
    """Rare classes above 1, frequent ones below: ``1 - spread z``, z the standardized log frequency.

    The published weights for Dark Zurich (0.05 in training, 0.16 for the test split).

    Args:
        frequencies: ``(C,)`` shares or counts of pixels, above 0.
        spread: standard deviation of the weights, the unbiased estimate over the classes.

    Raises:
        ValueError: a class has no pixel, or the spread makes a weight 0 or less.

    Examples:
        >>> log_frequency_class_weights(torch.tensor([0.6, 0.3, 0.1]), spread=0.05)
        tensor([0.9542, 0.9925, 1.0533])
    """
    if not (frequencies > 0).all():
        absent = torch.nonzero(~(frequencies > 0)).flatten().tolist()
        raise ValueError(f"class weights need pixels of every class; there are none of {absent}")
    log_frequency = frequencies.log()
    std, mean = torch.std_mean(log_frequency)
    tiny = torch.finfo(std.dtype).tiny  # all classes as frequent: all weights are 1
    weights = 1 - spread * (log_frequency - mean) / std.clamp(min=tiny)
    if not (weights > 0).all():
        raise ValueError(
            f"a spread of {spread} gives class {weights.argmin()} the weight {weights.min():.2g}: "
            "lower it, so that all are above 0"
        )
    return weights
