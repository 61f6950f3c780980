"""The probability that a predicted class is wrong, by what the model itself says of a pixel.

Shapes: C classes, S signals; N images of H x W pixels, or N pixels.
"""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Each is higher where a pixel is more likely to be wrong, if it tells anything.
SIGNALS = ("log_odds", "entropy", "prototypes", "log_variance")
ROUNDS = 100  # of L-BFGS, which needs about 20
DECAY = 1e-3  # of the weights, in units of the signals' standard deviations


class ErrorProbability(nn.Module):
    """A temperature of the class scores, and a logistic regression of errors by ``SIGNALS``.

    Its weights are not negative: where images are other ones than those it was fitted on, it can't be
    that a model errs the less the less sure it is (docs/uncertainty.md has what came of weights that
    may be).

    Examples:
        >>> model = ErrorProbability()
        >>> scores = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
        >>> model.fit({"sem_seg": scores}, torch.tensor([0, 0, 1, 0, 1]))
        >>> model({"sem_seg": scores}).round(decimals=2)
        tensor([0.3300, 0.3300, 0.3300, 0.5000, 0.5000])
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.zeros(()))  # 0: not fitted
        self.register_buffer("weight", torch.zeros(len(SIGNALS)))
        self.register_buffer("bias", torch.zeros(()))
        # Whether it was fitted to scores with those of ImageNet prototypes.
        self.register_buffer("imagenet_prototypes", torch.tensor(False))

    @property
    def fitted(self) -> bool:
        return bool(self.temperature > 0)

    def forward(self, output: Mapping[str, Tensor]) -> Tensor:
        """The probability ``(N, ...)`` that the class of the highest score is wrong.

        Args:
            output: "sem_seg" ``(N, C, ...)``, class scores; of a model with prototypes "uncertainty" and
                "log_variance" ``(N, ...)``, too.
        """
        signals = self.signals(output)
        return torch.sigmoid(torch.tensordot(self.weight, signals, 1) + self.bias)

    def signals(self, output: Mapping[str, Tensor]) -> Tensor:
        """What tells of errors, ``(S, N, ...)``; 0 where the model has no such output."""
        log_probability = (output["sem_seg"].float() / self.temperature).log_softmax(1)
        wrong = (1 - log_probability.amax(1).exp()).clamp(min=1e-6)
        nothing = torch.zeros_like(wrong)
        return torch.stack([
            wrong.logit(),
            -log_probability.exp().mul_(log_probability).sum(1),  # in place: scores take much memory
            output.get("uncertainty", nothing).float(),
            output.get("log_variance", nothing).float(),
        ])  # fmt: skip

    def fit(self, output: Mapping[str, Tensor], label: Tensor) -> None:
        """Fit both to labeled pixels; where all are right, or all wrong, nothing is fitted.

        Args:
            output: as in :meth:`forward`, of N pixels.
            label: ``(N,)`` train IDs.
        """
        scores = output["sem_seg"].double()
        wrong = (scores.argmax(1) != label).double()
        self.temperature.zero_()
        if wrong.min() == wrong.max():
            return
        (logarithm,) = _minimized(
            torch.zeros(1, dtype=torch.float64, device=scores.device),
            lambda x: F.cross_entropy(scores / x.exp(), label),
        )
        self.temperature.copy_(logarithm.exp())
        signals = self.signals(output).double()
        mean, deviation = signals.mean(1), signals.std(1)
        deviation = deviation.where(deviation > 0, math.inf)  # of those that the model has not
        standard = (signals - mean[:, None]) / deviation[:, None]

        def loss(x: Tensor) -> Tensor:
            # Squares are not negative.
            odds = x[:-1].square() @ standard + x[-1]
            return F.binary_cross_entropy_with_logits(odds, wrong) + DECAY * x[:-1].pow(4).sum()

        start = torch.full((len(SIGNALS) + 1,), 0.5, dtype=torch.float64, device=scores.device)
        *roots, bias = _minimized(start, loss)
        weight = torch.stack(roots).square() / deviation
        self.weight.copy_(weight)
        self.bias.copy_(bias - weight @ mean)


@torch.enable_grad()
def _minimized(start: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Where a smooth function of a few numbers is lowest."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([x], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(x)
        value.backward()
        return value

    optimizer.step(closure)
    return x.detach()
