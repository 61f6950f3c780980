"""Class weights from log frequencies."""

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from pppc.method.class_weights import log_frequency_class_weights

GOLDEN = REPOSITORY / "tests/golden"


@pytest.mark.parametrize(("spread", "name"), [(0.05, "train_std005"), (0.16, "test_std016")])
def test_weights_of_published_code(spread, name):
    golden = np.load(GOLDEN / "dark_class_weights.npz")
    weights = log_frequency_class_weights(torch.from_numpy(golden["freq"]), spread)
    np.testing.assert_allclose(weights, golden[name], rtol=1e-4)


def test_a_class_without_pixels_is_named():
    with pytest.raises(ValueError, match=r"none of \[1\]"):
        log_frequency_class_weights(torch.tensor([0.5, 0.0, 0.5]), 0.05)
