"""From a trained model to what it sees in images, one by one or in folders."""

from .predictor import Part, Prediction, Predictor, load

__all__ = ["Part", "Prediction", "Predictor", "load"]
