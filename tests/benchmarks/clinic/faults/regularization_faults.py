"""Decay, dropout and clipping that take away what the gradient brings."""

from __future__ import annotations

from torch import nn

from ..setup import Setup
from .kind import Kind


def decay(setup: Setup, place: int, strength: float) -> None:
    setup.decay = strength


def dropout_of_what_is_kept(setup: Setup, place: int, kept: float) -> None:
    """The probability to be kept, given to a layer that asks for the one to be dropped."""
    for spot in setup.network.places:
        setup.network.put(spot.plug, nn.Dropout(kept))


def clip_to_nothing(setup: Setup, place: int, limit: float) -> None:
    setup.clip = (limit, "norm")


def clip_entries_to_nothing(setup: Setup, place: int, limit: float) -> None:
    setup.clip = (limit, "value")


REGULARIZATION_FAULTS: dict[str, Kind] = {
    "decay too large": Kind(decay, "over_regularization", "anywhere", lost=0.1),
    "keep probability as dropout": Kind(dropout_of_what_is_kept, "over_regularization", "anywhere", lost=0.1),
    "clipped to nothing": Kind(clip_to_nothing, "over_regularization", "training", lost=0.1),
    "entries clipped to nothing": Kind(clip_entries_to_nothing, "over_regularization", "training", lost=0.1),
}
