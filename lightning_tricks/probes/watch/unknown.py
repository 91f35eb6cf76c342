"""Nonlinearities that nobody knows: elementwise functions between two weighted operations, such as ``clamp(min=0)``.

What such functions make of a pre-activation is noted on their output. Where a weighted operation takes it, an
activation is told from the pre-activation and that input; where the two do not belong together, it is listed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from lightning_tricks.probes.measure.tallies import Unmeasured, WeightedTally, origin_of
from lightning_tricks.probes.watch.observer import Observer
from lightning_tricks.stats import sample

Operands = list[Unmeasured | None]
_SUMS = ("add", "sub", "subtract", "rsub", "radd")


def operands(observer: Observer, func: Callable[..., Any], args: Sequence[Any]) -> Operands:
    """For each argument what is known of it as a pre-activation, or as what was made of one; called before ``func``."""
    if not observer.active:
        return []
    found = [_operand(observer, argument) for argument in args]
    if any(found) and getattr(func, "__name__", "").endswith("_") and not func.__name__.endswith("__"):
        found = [_entered(observer, argument, each) for argument, each in zip(args, found, strict=True)]
    return found


def note(observer: Observer, func: Callable[..., Any], args: Sequence[Any], given: Operands, output: Any) -> None:
    """An elementwise function that is not linear has run: remember it on its output."""
    known = [each for each in given if each is not None]
    if not known or not isinstance(output, Tensor) or not output.requires_grad:
        return
    with observer.guard("nonlinearities"):
        pairs = zip(args, given, strict=True)
        fitting = [(x, each) for x, each in pairs if each is not None and x.shape == output.shape]
        if not fitting:
            return
        alone = all(
            each is not None or not getattr(x, "requires_grad", False) for x, each in zip(args, given, strict=True)
        )
        name = observer.name("nonlinearity", func.__name__.strip("_"))
        made = dataclasses.replace(known[0], name=name, entered=None)
        if alone and len({id(each.weights) for each in known}) == 1:
            found = [_entered(observer, x, each) for x, each in fitting]
            whole = next((each for each in found if each is not None and each.entered is not None), known[0])
            made = dataclasses.replace(whole, name=name)
        observer.annotations.write(output, made)


def note_sum_or_product(
    observer: Observer, func: Callable[..., Any], args: Sequence[Any], given: Operands, output: Any
) -> None:
    """A sum or a product has run: not linear where both are made of one pre-activation, as in ``x * (x > 0)``."""
    if not any(given) or not isinstance(output, Tensor):
        return
    with observer.guard("nonlinearities"):
        known = [each for each in given if each is not None]
        numbers = not any(isinstance(x, Tensor) for x, each in zip(args, given, strict=True) if each is None)
        if len(known) == 2 and known[0].weights is known[1].weights:
            if known[0].name or known[1].name or func.__name__.strip("_") not in _SUMS:
                note(observer, func, args, given, output)
        elif len(known) == 1 and numbers:
            if known[0].name:
                note(observer, func, args, given, output)
            elif observer.annotations.read(output) is None:  # linear still
                observer.annotations.write(output, Unmeasured("", known[0].weights))


def measured(observer: Observer, x: Any) -> Any:
    """What is known of a tensor that elementwise functions are over with: an activation that nobody knew is counted."""
    source = observer.annotations.read(x)
    if isinstance(source, Unmeasured) and source.name:
        with observer.guard(source.name):
            tally = observer.activations.unknown(source, x)
            if tally is not None:
                observer.annotations.write(x, tally)
                return tally
    return source


def settle(observer: Observer, name: str, x: Any) -> Any:
    """The same of the input of a weighted operation; what cannot be measured is listed."""
    source = measured(observer, x)
    origin = origin_of(source)
    if not isinstance(origin, Unmeasured):
        return source
    if not origin.name:
        return None
    observer.tallies.not_seen[origin.name] = (
        f"a nonlinearity that is no known activation, between two weighted operations (before {name}): not "
        "measured; lightning_tricks.activations.register makes it known"
    )
    return None


def _operand(observer: Observer, argument: Any) -> Unmeasured | None:
    if not isinstance(argument, Tensor):
        return None
    source = observer.annotations.read(argument)
    origin = origin_of(source)
    if isinstance(origin, Unmeasured):
        return origin if origin is source else dataclasses.replace(origin, entered=None)
    if isinstance(origin, WeightedTally):
        return Unmeasured("", origin, shape=tuple(argument.shape), direct=origin is source)
    return None


def _entered(observer: Observer, argument: Any, known: Unmeasured | None) -> Unmeasured | None:
    """With the sample of the pre-activation, where this argument is one."""
    if known is None or known.name or known.entered is not None or not argument.is_floating_point():
        return known
    axis = known.weights.axis
    if known.shape != argument.shape or -axis > argument.dim():
        return known
    return dataclasses.replace(known, entered=sample(argument, axis, observer.max_patterns, copy=True))
