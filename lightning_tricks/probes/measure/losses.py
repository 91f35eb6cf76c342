"""Calls of loss functions: what came in, what was wanted, and the value, whatever the reduction."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_tricks._compat import torch_functions
from lightning_tricks._compat.torch_functions import Function
from lightning_tricks.probes.measure.loss_and_norm_sums import LossSums, ValueSummary, extremes
from lightning_tricks.probes.measure.tallies import ActivationTally, LossTally, Tallies, WeightedTally, origin_of
from lightning_tricks.probes.measure.targets import targets, tokens, weights
from lightning_tricks.stats import sample

MAX_INPUTS = 2**20  # of a call are looked at: large vocabularies are thinned along the patterns
_MIN_PATTERNS = 32


@dataclass(frozen=True)
class LossFunction:
    """A loss function of torch.nn.functional.

    Args:
        name: Its name.
        outputs: What the outputs of one pattern are: ``classes`` of which one is right, a ``distribution``, or
            ``values`` that each have a target of their own.
        chance: What a uniform guess costs: ``classes`` ln C, ``halves`` ln 2, None where there is no such guess.
        whole: Whether one number comes of all outputs of a pattern, rather than of each.
        weighs: Whether its mean divides by the sum of the weights.
    """

    name: str
    outputs: Literal["classes", "distribution", "values"] = "values"
    chance: Literal["classes", "halves"] | None = None
    whole: bool = False
    weighs: bool = False


def count(
    name: str,
    kind: LossFunction,
    tallies: Tallies,
    func: Function,
    given: Mapping[str, Any],
    output: Tensor,
    annotation: Any,
    max_patterns: int | None,
    embedded: Sequence[Tensor] = (),
) -> LossTally:
    """Count one call.

    Args:
        name: The name of the call.
        kind: Which function it is.
        tallies: Where it is counted.
        func: The function itself.
        given: The arguments by name.
        output: What it returned.
        annotation: What is known of the input: the tally whose output it is or was made of, or anything else.
        max_patterns: The most patterns per output that are looked at.
        embedded: The tokens that went into the network.
    """
    x = given["input"]
    axis = _axis(kind, x, annotation)
    outputs = x.shape[axis] if axis else 1
    tally = tallies.losses.get(name)
    if tally is None:
        tally = tallies.losses[name] = _tally(name, kind, tallies, given, annotation, outputs)
        tally.arguments = _told(func, given)
    sums = _sums(kind, func, given, output, axis, outputs, max_patterns)
    if embedded and by_number(kind, given["target"]):
        sums = dataclasses.replace(sums, **tokens(annotation, embedded, given["target"], given.get("ignore_index")))
    tally.calls.append(sums)
    return tally


def arguments(func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name."""
    return {**_signature(func).bind(*args, **kwargs).arguments}


def _tally(
    name: str, kind: LossFunction, tallies: Tallies, given: Mapping[str, Any], annotation: Any, outputs: int
) -> LossTally:
    origin = origin_of(annotation)
    activation = origin if isinstance(origin, ActivationTally) else None
    weighted = activation.weights if activation is not None else origin
    if not isinstance(weighted, WeightedTally):
        weighted = next(reversed(tallies.weighted.values()), None)
    return LossTally(
        name,
        kind.name,
        tallies.next_order(),
        tuple(given["input"].shape),
        tuple(given["target"].shape),
        outputs,
        None if weighted is None else weighted.name,
        None if activation is None else activation.name,
        _reduction_of(given),
        given["input"].numel() // (outputs if kind.whole or kind.outputs == "distribution" else 1),
        torch.finfo(given["input"].dtype).eps,
    )


def _told(func: Function, given: Mapping[str, Any]) -> str:
    """What a call was given beside inputs and targets, without what is a default; of tensors their shapes."""
    defaults = {name: each.default for name, each in _signature(func).parameters.items()}
    told = {
        name: f"{name}={list(value.shape) if isinstance(value, Tensor) else repr(value)}"
        for name, value in given.items()
        if name not in ("input", "target") and (isinstance(value, Tensor) or value != defaults[name])
    }
    return ", ".join(told.values())


def _axis(kind: LossFunction, x: Tensor, annotation: Any) -> int:
    """The dimension of the outputs of a pattern, negative; 0 where a pattern has one."""
    if kind.outputs == "classes":
        return 1 - x.dim() if x.dim() > 1 else -1
    if x.dim() < 2:
        return 0
    if isinstance(annotation, (WeightedTally, ActivationTally)):
        return annotation.axis
    return -1 if x.dim() < 4 else 1 - x.dim()


def _sums(
    kind: LossFunction,
    func: Function,
    given: Mapping[str, Any],
    output: Tensor,
    axis: int,
    outputs: int,
    max_patterns: int | None,
) -> LossSums:
    most = None if max_patterns is None else min(max_patterns, max(MAX_INPUTS // outputs, _MIN_PATTERNS))
    values, lies = sample(given["input"], axis, most)
    sums = log_sums = None
    if kind.outputs != "values" and outputs > 1:
        sums, log_sums = extremes(values.sum(1 - lies)), extremes(values.logsumexp(1 - lies))
    numbers, yes_or_no = by_number(kind, given["target"]), kind.chance == "halves"
    cut = (0.5 if kind.name == "binary_cross_entropy" else 0.0) if yes_or_no else None
    return LossSums(
        values.shape[lies],
        values.numel(),
        _value(kind, given, output, outputs),
        _chance(kind, func, given, outputs),
        ValueSummary.of(values),
        torch.count_nonzero(values),
        sums,
        log_sums,
        _spread(values, lies),
        weights=weights(numbers, yes_or_no, given),
        smoothing=float(given.get("label_smoothing", 0.0)),
        **targets(numbers, kind.outputs == "classes", given, values, lies, axis, most, cut),
    )


def _spread(values: Tensor, lies: int) -> Tensor:
    variance, mean = torch.var_mean(values, lies, correction=0)
    return torch.stack((variance.amax(), (variance + mean * mean).amax()))


def _value(kind: LossFunction, given: Mapping[str, Any], output: Tensor, outputs: int) -> Tensor:
    x, target, weight, reduction = given["input"], given["target"], given.get("weight"), _reduction_of(given)
    output = output.float() if output.dtype in (torch.float16, torch.bfloat16) else output
    if kind.outputs == "distribution":
        whole = {"mean": x.numel(), "batchmean": len(x) if x.dim() else 1}.get(reduction, 1)
        return output.sum() * (whole * outputs / x.numel())
    if reduction == "mean":
        return output
    count: Any
    if by_number(kind, target):
        known = target != given.get("ignore_index", -100)
        count = known.sum() if weight is None or not kind.weighs else (weight[target.where(known, 0)] * known).sum()
    elif kind.whole:
        count = x.numel() // outputs
    elif kind.weighs and weight is not None:
        count = weight.expand(torch.broadcast_shapes(x.shape, target.shape)).sum()
    else:
        count = torch.broadcast_shapes(x.shape, target.shape).numel()
    return output.sum() / count


def _chance(kind: LossFunction, func: Function, given: Mapping[str, Any], outputs: int) -> Any:
    target, weight = given["target"], given.get("weight")
    if kind.chance == "classes":
        return math.log(outputs) if weight is None or by_number(kind, target) else math.nan
    if kind.chance is None or (weight is not None and kind.whole):
        return math.nan
    weights = {key: given[key] for key in ("weight", "pos_weight") if given.get(key) is not None}
    if not weights:
        return math.log(2.0)
    guess = torch.full_like(given["input"], 0.5 if kind.name == "binary_cross_entropy" else 0.0)
    return func(guess, target, **weights)


def by_number(kind: LossFunction, target: Tensor) -> bool:
    """Whether the targets are numbers of classes."""
    return kind.outputs == "classes" and not target.is_floating_point()


def _reduction_of(given: Mapping[str, Any]) -> str:
    average, reduce = given.get("size_average"), given.get("reduce")
    if average is None and reduce is None:
        return str(given.get("reduction", "mean"))
    return torch_functions.legacy_reduction(average, reduce)


@functools.lru_cache(maxsize=64)
def _signature(func: Any) -> inspect.Signature:
    return inspect.signature(func)


FUNCTIONS = (
    LossFunction("cross_entropy", "classes", "classes", whole=True, weighs=True),
    LossFunction("nll_loss", "classes", "classes", whole=True, weighs=True),
    LossFunction("multi_margin_loss", "classes", whole=True),
    LossFunction("binary_cross_entropy", chance="halves"),
    LossFunction("binary_cross_entropy_with_logits", chance="halves"),
    LossFunction("soft_margin_loss", chance="halves"),
    LossFunction("multilabel_soft_margin_loss", chance="halves", whole=True),
    LossFunction("multilabel_margin_loss", whole=True),
    LossFunction("hinge_embedding_loss"),
    LossFunction("mse_loss", weighs=True),
    LossFunction("l1_loss", weighs=True),
    LossFunction("smooth_l1_loss"),
    LossFunction("huber_loss", weighs=True),
    LossFunction("gaussian_nll_loss"),
    LossFunction("poisson_nll_loss"),
    LossFunction("kl_div", "distribution"),
)
