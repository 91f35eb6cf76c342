"""What to do about each problem, the best first."""

from __future__ import annotations

from lightning_tricks.diagnosis.finding import Remedy

_FADING = (
    "sigmoid",
    "hardsigmoid",
    "softsign",
    "tanhshrink",
)  # slopes so small that no initial weights carry them deep


def initialize(layer: str | None = None) -> Remedy:
    """Initial weights for the activations that follow, in every layer."""
    text = (
        "start every layer with weights that fit, and biases 0: lt.init.initialize(model), or lt.init.lsuv_(model, x)"
    )
    return Remedy("initialize", text, layer)


def of_a_start(function: str) -> tuple[Remedy, ...]:
    """For signals that fade or grow from layer to layer: other units where weights alone cannot help."""
    if function in _FADING:
        return SELU, BATCH_NORM, initialize(), STANDARDIZE
    return initialize(), BATCH_NORM, SELU, STANDARDIZE


STANDARDIZE = Remedy("standardize_input", "normalise the input: put lt.nn.Standardize.fit(train_loader) first")
SELU = Remedy(
    "swap_activation",
    "use self-normalising units: lt.nn.SELULinear, or lt.surgery.self_normalize(model) for ReLU networks",
)
LEAKY = Remedy("swap_activation", "use units that cannot die: SELU, or nn.LeakyReLU")
BATCH_NORM = Remedy("insert_batch_norm", "put batch normalisation before the activation: nn.BatchNorm1d / 2d")
RESIDUAL = Remedy("insert_residual", "give the gradient a short way back: residual connections, or fewer layers")
LOWER_LR = Remedy("lower_learning_rate", "lower the learning rate, by a factor of 3 to 10")
CLIP = Remedy("clip_gradients", "clip the gradient: Trainer(gradient_clip_val=1.0)")
RESET_BIAS = Remedy("reset_bias", "set the biases of this layer to 0: they hold its units on one side of zero")
RANDOM = Remedy("initialize", "start with random weights: lt.init.lecun_normal_(layer.weight)")
CENTRE = Remedy("centre_input", "centre what the layer receives: zero-mean units (SELU, tanh) or a normalised input")
CHECK_DATA = Remedy(
    "check_data", "look for NaN and Inf in the data, and for log(0), x/0 and overflow before this layer"
)
