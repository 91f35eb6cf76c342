"""Elementwise functions that stand where an activation does and are none that is known: they are listed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_tricks.probes.measure.tallies import Unmeasured, WeightedTally, origin_of
from lightning_tricks.probes.watch.observer import Observer


def weighted_behind(observer: Observer, argument: Any) -> WeightedTally | None:
    if not observer.active or not isinstance(argument, Tensor):
        return None
    origin = origin_of(observer.annotations.read(argument))
    return origin if isinstance(origin, WeightedTally) else None


def note_nonlinearity(
    observer: Observer, func: Any, args: tuple[Any, ...], behind: list[WeightedTally | None], output: Any
) -> None:
    """Remember that an elementwise function took a pre-activation: if a weighted operation follows, it is listed."""
    if not any(behind) or not isinstance(output, Tensor) or not output.requires_grad:
        return
    with observer.guard("nonlinearities"):
        name = func.__name__.strip("_")
        if any(tally and x.shape == output.shape for x, tally in zip(args, behind, strict=False)):
            observer.annotations.write(output, Unmeasured(observer.modules.name("nonlinearity", name)))


def list_unmeasured(observer: Observer, name: str, source: Any) -> Any:
    """What is known of the input of a weighted operation, without what is only known as not measured."""
    origin = origin_of(source)
    if not isinstance(origin, Unmeasured):
        return source
    observer.tallies.not_seen[origin.name] = (
        f"a nonlinearity that is no known activation, between two weighted operations (before {name}): not measured; "
        "lightning_tricks.activations.register makes it known"
    )
    return None
