"""What to do about each problem, the best first."""

from __future__ import annotations

from lightning_tricks.diagnosis.finding import Remedy

_SCHEMES = {"relu": "he_normal", "relu6": "he_normal", "leaky_relu": "he_normal"}


def initialize(function: str | None, layer: str | None = None) -> Remedy:
    """Initial weights for the activation that follows."""
    scheme = _SCHEMES.get(function or "", "lecun_normal")
    return Remedy("initialize", f"start with weights for this activation: lt.init.{scheme}_(layer.weight)", layer)


STANDARDIZE = Remedy("standardize_input", "normalise the input: put lt.nn.Standardize.fit(train_loader) first")
SELU = Remedy("swap_activation", "use self-normalising units: lt.nn.SELULinear (SELU with LeCun initialisation)")
LEAKY = Remedy("swap_activation", "use units that cannot die: SELU, or nn.LeakyReLU")
BATCH_NORM = Remedy("insert_batch_norm", "put batch normalisation before the activation: nn.BatchNorm1d / 2d")
RESIDUAL = Remedy("insert_residual", "give the gradient a short way back: residual connections, or fewer layers")
LOWER_LR = Remedy("lower_learning_rate", "lower the learning rate, by a factor of 3 to 10")
CLIP = Remedy("clip_gradients", "clip the gradient: Trainer(gradient_clip_val=1.0)")
RANDOM = Remedy("initialize", "start with random weights: lt.init.lecun_normal_(layer.weight)")
CENTRE = Remedy("centre_input", "centre what the layer receives: zero-mean units (SELU, tanh) or a normalised input")
CHECK_DATA = Remedy(
    "check_data", "look for NaN and Inf in the data, and for log(0), x/0 and overflow before this layer"
)
