"""Calls of batch normalisations that keep running statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_tricks.probes.measure.loss_and_norm_sums import NormalizationSums
from lightning_tricks.probes.measure.tallies import (
    ActivationTally,
    Derived,
    NormalizationTally,
    Tallies,
    WeightedTally,
    origin_of,
)
from lightning_tricks.stats import MomentSums, sample

_DEFAULTS = {"running_mean": None, "running_var": None, "training": False, "momentum": 0.1, "eps": 1e-5}
_POSITIONS = {"running_mean": 1, "running_var": 2, "training": 5, "momentum": 6, "eps": 7}


def arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of F.batch_norm after the input, by name."""
    return {key: args[at] if at < len(args) else kwargs.get(key, _DEFAULTS[key]) for key, at in _POSITIONS.items()}


def count(
    name: str, tallies: Tallies, x: Tensor, annotation: Any, given: Mapping[str, Any], max_patterns: int | None
) -> None:
    """Count a call that is about to run, and to update the running statistics.

    Args:
        name: The name of the call.
        tallies: Where it is counted.
        x: Its input, ``[batch, channels, ...]``.
        annotation: What is known of the input: the tally whose output it is or was made of, or anything else.
        given: Its other arguments by name.
        max_patterns: The most patterns per channel that are looked at.
    """
    channels, axis = x.shape[1], 1 - x.dim()
    tally = tallies.normalizations.get(name)
    if tally is None:
        origin, momentum = origin_of(annotation), given["momentum"]
        tally = tallies.normalizations[name] = NormalizationTally(
            name,
            tallies.next_order(),
            channels,
            len(x),
            x.numel() // channels,
            bool(given["training"]),
            float(momentum) if isinstance(momentum, (int, float)) else math.nan,
            float(given["eps"]),
            origin if isinstance(origin, WeightedTally) else None,
            annotation.dropout if isinstance(annotation, Derived) else 0.0,
        )
    moments = None
    if isinstance(annotation, (WeightedTally, ActivationTally)) and annotation.axis == axis:
        moments = annotation.outputs
    if moments is None:
        taken = sample(x, axis, max_patterns)
        moments = MomentSums.of(taken.values, taken.dim)
    tally.calls.append(NormalizationSums(moments, given["running_mean"].clone(), given["running_var"].clone()))
