"""The probability of error, fitted to pixels whose errors are drawn."""

import pytest
import torch
from pppc.modeling.error_probability import SIGNALS, ErrorProbability


def drawn(number: int, temperature: float, seed: int) -> tuple[dict, torch.Tensor]:
    """Pixels whose labels are drawn by scores that are then multiplied by the temperature."""
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(number, 5, generator=generator)
    label = torch.multinomial(scores.softmax(1), 1, generator=generator)[:, 0]
    noise = torch.randn(number, generator=generator)
    return {"sem_seg": temperature * scores, "log_variance": noise}, label


def test_temperature_and_probability_are_those_by_which_errors_were_drawn():
    model = ErrorProbability()
    model.fit(*drawn(10_000, temperature=2.5, seed=0))
    assert model.temperature.item() == pytest.approx(2.5, rel=0.05)
    assert (model.weight >= 0).all()
    weight = dict(zip(SIGNALS, model.weight.tolist()))
    assert weight["prototypes"] == 0  # the model has none
    assert weight["log_variance"] < 0.02  # it tells nothing
    output, label = drawn(10_000, temperature=2.5, seed=1)
    expected = 1 - (output["sem_seg"] / 2.5).softmax(1).amax(1)
    assert (model(output) - expected).abs().mean() < 0.01
    # At the lowest loss the mean is the share of errors, whatever the signals.
    output, label = drawn(10_000, temperature=2.5, seed=0)
    wrong = output["sem_seg"].argmax(1) != label
    assert model(output).mean().item() == pytest.approx(wrong.double().mean().item(), abs=1e-4)
    image = {
        name: values[:6].reshape(1, 2, 3, *values.shape[1:]) for name, values in output.items()
    }
    image["sem_seg"] = image["sem_seg"].permute(0, 3, 1, 2)
    torch.testing.assert_close(model(image).flatten(), model(output)[:6])


def test_a_signal_that_is_high_where_the_model_is_right_has_no_weight():
    output, label = drawn(2_000, temperature=1.0, seed=0)
    output["log_variance"] = (output["sem_seg"].argmax(1) == label).float()
    model = ErrorProbability()
    model.fit(output, label)
    assert model.weight[SIGNALS.index("log_variance")] < 1e-3
    output["log_variance"] = 1 - output["log_variance"]
    model.fit(output, label)
    assert model.weight[SIGNALS.index("log_variance")] > 1


def test_without_an_error_nothing_is_fitted():
    output, _ = drawn(100, temperature=1.0, seed=0)
    model = ErrorProbability()
    model.fit(output, output["sem_seg"].argmax(1))
    assert not model.fitted
