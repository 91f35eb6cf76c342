"""What to do about more problems than one; what is for one alone stands with its rule."""

from __future__ import annotations

import re

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis.finding import Remedy
from lightning_tricks.diagnosis.history.layers import input_layer
from lightning_tricks.probes import Snapshot

OFF = 0.5  # of a mean or a standard deviation: within this it is about 0 or 1
STANDARDIZE = Remedy("standardize_input", "normalise the input: put lt.nn.Standardize.fit(train_loader) first")
LOWER_LR = Remedy("lower_learning_rate", "lower the learning rate, by a factor of 3 to 10")
CLIP = Remedy("clip_gradients", "clip the gradient: Trainer(gradient_clip_val=1.0)")


def written(name: str) -> str:
    """The name of a module or parameter as a line of Python has it.

    >>> written("network.6.bias"), written("2.bias"), written("encoder.layers.0.linear1")
    ('network[6].bias', 'model[2].bias', 'encoder.layers[0].linear1')
    """
    indexed = re.sub(r"(?:^|\.)(\d+)(?=\.|$)", r"[\1]", name)
    return f"model{indexed}" if indexed.startswith("[") else indexed


def initialize(layer: str | None = None) -> Remedy:
    """Initial weights for the activations that follow, in every layer."""
    text = (
        "start every layer with weights that fit, and biases 0: lt.init.initialize(model), or lt.init.lsuv_(model, x)"
    )
    return Remedy("initialize", text, layer)


def of_a_start(
    snapshot: Snapshot, function: str, layer: str | None = None, *, ordinary: bool = True
) -> tuple[Remedy, ...]:
    """For signals that fade or grow from layer to layer: other units first where weights alone cannot help."""
    others = (*self_normalize(function), *batch_norm(snapshot, layer))
    fading = properties_of(function).fading and ordinary  # no initial weights carry such slopes deep
    return (*((*others, initialize()) if fading else (initialize(), *reversed(others))), *standardize(snapshot))


def self_normalize(function: str) -> tuple[Remedy, ...]:
    """Other units in place of these, unless they are SELU."""
    if function == "selu":
        return ()
    old = "" if properties_of(function).rectifier else f", old={function!r}"
    how = f", or lt.surgery.self_normalize(model{old})" if function else ""
    return (Remedy("swap_activation", f"use self-normalising units: lt.nn.SELULinear{how}"),)


def batch_norm(snapshot: Snapshot, layer: str | None) -> tuple[Remedy, ...]:
    """Behind a weighted layer, unless one is there."""
    if any(layer is not None and record.follows == layer for record in snapshot.normalizations):
        return ()
    return (Remedy("insert_batch_norm", "put batch normalisation before the activation: nn.BatchNorm1d / 2d"),)


def standardize(snapshot: Snapshot) -> tuple[Remedy, ...]:
    """Where data come in whose mean is not about 0 or whose standard deviation is not about 1."""
    data = input_layer(snapshot)
    if data is None or (abs(data.input_mean) <= OFF and 1.0 - OFF <= data.input_std <= 1.0 / (1.0 - OFF)):
        return ()
    return (STANDARDIZE,)


def change_lr(how: str, factor: float, now: float) -> Remedy:
    """By a factor that the update ratio gives; ``how`` is "lower" or "raise"."""
    new = now / factor if how == "lower" else now * factor
    to = f", from {now:.2g} to about {new:.1g}" if new > 0 else ""
    text = f"{how} the learning rate by a factor of about {float(f'{factor:.1g}'):g}{to}"
    return Remedy(f"{how}_learning_rate", text)
