"""What to do about more problems than one; what is for one alone stands with its rule."""

from __future__ import annotations

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis.finding import Remedy

STANDARDIZE = Remedy("standardize_input", "normalise the input: put lt.nn.Standardize.fit(train_loader) first")
SELU = Remedy(
    "swap_activation",
    "use self-normalising units: lt.nn.SELULinear, or lt.surgery.self_normalize(model) for ReLU networks",
)
BATCH_NORM = Remedy("insert_batch_norm", "put batch normalisation before the activation: nn.BatchNorm1d / 2d")
LOWER_LR = Remedy("lower_learning_rate", "lower the learning rate, by a factor of 3 to 10")
CLIP = Remedy("clip_gradients", "clip the gradient: Trainer(gradient_clip_val=1.0)")


def initialize(layer: str | None = None) -> Remedy:
    """Initial weights for the activations that follow, in every layer."""
    text = (
        "start every layer with weights that fit, and biases 0: lt.init.initialize(model), or lt.init.lsuv_(model, x)"
    )
    return Remedy("initialize", text, layer)


def of_a_start(function: str) -> tuple[Remedy, ...]:
    """For signals that fade or grow from layer to layer: other units where weights alone cannot help."""
    if properties_of(function).fading:  # no initial weights carry such slopes deep
        return SELU, BATCH_NORM, initialize(), STANDARDIZE
    return initialize(), BATCH_NORM, SELU, STANDARDIZE


def change_lr(how: str, factor: float, now: float) -> Remedy:
    """By a factor that the update ratio gives; ``how`` is "lower" or "raise"."""
    new = now / factor if how == "lower" else now * factor
    to = f", from {now:.2g} to about {new:.1g}" if new > 0 else ""
    text = f"{how} the learning rate by a factor of about {float(f'{factor:.1g}'):g}{to}"
    return Remedy(f"{how}_learning_rate", text)
