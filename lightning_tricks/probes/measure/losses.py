"""Calls of loss functions: what came in, what was wanted, and the value, whatever the reduction."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import _reduction

from lightning_tricks.probes.measure.loss_tally import LossSums, LossTally, Spread, ends
from lightning_tricks.probes.measure.tallies import ActivationTally, WeightedTally, origin_of
from lightning_tricks.stats import sample

if TYPE_CHECKING:
    from lightning_tricks.probes.watch.observer import Observer

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


def call(
    kind: LossFunction, observer: Observer, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run a loss function and count it, unless its input needs no gradient: then it is a metric."""
    x = args[0] if args else kwargs.get("input")
    output = func(*args, **kwargs)
    if observer.listening and torch.is_grad_enabled() and isinstance(x, Tensor) and x.requires_grad and x.numel():
        name = observer.modules.name("loss", kind.name)
        with observer.guard(name), torch.no_grad():
            if observer.readable(name, x):
                given = {**_signature(func).bind(*args, **kwargs).arguments}
                _count(name, kind, observer, func, given, output.detach())
    return output


def _count(
    name: str, kind: LossFunction, observer: Observer, func: Any, given: Mapping[str, Any], output: Tensor
) -> None:
    x, target = given["input"], given["target"]
    annotation = observer.annotations.read(x)
    axis = _axis(kind, x, annotation)
    outputs = x.shape[axis] if axis else 1
    tallies = observer.tallies
    tally = tallies.losses.get(name)
    if tally is None:
        origin = origin_of(annotation)
        activation = origin if isinstance(origin, ActivationTally) else None
        weighted = activation.weights if activation is not None else origin
        if not isinstance(weighted, WeightedTally):
            weighted = next(reversed(tallies.weighted.values()), None)
        tally = tallies.losses[name] = LossTally(
            name,
            kind.name,
            tallies.tick(),
            tuple(x.shape),
            tuple(target.shape),
            outputs,
            None if weighted is None else weighted.name,
            None if activation is None else activation.name,
        )
    tally.calls.append(_sums(kind, func, given, output, axis, outputs, observer.max_patterns))


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
    func: Any,
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
        sums, log_sums = ends(values.sum(1 - lies)), ends(values.logsumexp(1 - lies))
    return LossSums(
        values.shape[lies],
        values.numel(),
        _value(kind, given, output, outputs),
        _chance(kind, func, given, outputs),
        Spread.of(values),
        torch.count_nonzero(values),
        sums,
        log_sums,
        **_targets(kind, given, axis, most),
    )


def _targets(kind: LossFunction, given: Mapping[str, Any], axis: int, most: int | None) -> dict[str, Any]:
    target = given["target"]
    if _by_number(kind, target):
        target = target.reshape(-1)
        step = 1 if most is None else max(1, math.ceil(len(target) / most))
        return {"classes": target[::step].float(), "ignored": given.get("ignore_index")}
    target = target if target.is_floating_point() else target.float()
    values = sample(target, axis if -axis <= target.dim() else 0, most).values
    return {"target": Spread.of(values)}


def _value(kind: LossFunction, given: Mapping[str, Any], output: Tensor, outputs: int) -> Tensor:
    x, target, weight, reduction = given["input"], given["target"], given.get("weight"), _reduction_of(given)
    output = output.float() if output.dtype in (torch.float16, torch.bfloat16) else output
    if kind.outputs == "distribution":
        whole = {"mean": x.numel(), "batchmean": len(x) if x.dim() else 1}.get(reduction, 1)
        return output.sum() * (whole * outputs / x.numel())
    if reduction == "mean":
        return output
    count: Any
    if _by_number(kind, target):
        known = target != given.get("ignore_index", -100)
        count = known.sum() if weight is None or not kind.weighs else (weight[target.where(known, 0)] * known).sum()
    elif kind.whole:
        count = x.numel() // outputs
    elif kind.weighs and weight is not None:
        count = weight.expand(torch.broadcast_shapes(x.shape, target.shape)).sum()
    else:
        count = torch.broadcast_shapes(x.shape, target.shape).numel()
    return output.sum() / count


def _chance(kind: LossFunction, func: Any, given: Mapping[str, Any], outputs: int) -> Any:
    target, weight = given["target"], given.get("weight")
    if kind.chance == "classes":
        return math.log(outputs) if weight is None or _by_number(kind, target) else math.nan
    if kind.chance is None or (weight is not None and kind.whole):
        return math.nan
    weights = {key: given[key] for key in ("weight", "pos_weight") if given.get(key) is not None}
    if not weights:
        return math.log(2.0)
    guess = torch.full_like(given["input"], 0.5 if func is F.binary_cross_entropy else 0.0)
    return func(guess, target, **weights)


def _by_number(kind: LossFunction, target: Tensor) -> bool:
    return kind.outputs == "classes" and not target.is_floating_point()


def _reduction_of(given: Mapping[str, Any]) -> str:
    average, reduce = given.get("size_average"), given.get("reduce")
    if average is None and reduce is None:
        return str(given.get("reduction", "mean"))
    return _reduction.legacy_get_string(average, reduce, emit_warning=False)


@functools.lru_cache(maxsize=64)
def _signature(func: Any) -> inspect.Signature:
    return inspect.signature(func)


FUNCTIONS: Mapping[Callable[..., Any], LossFunction] = {
    F.cross_entropy: LossFunction("cross_entropy", "classes", "classes", whole=True, weighs=True),
    F.nll_loss: LossFunction("nll_loss", "classes", "classes", whole=True, weighs=True),
    F.multi_margin_loss: LossFunction("multi_margin_loss", "classes", whole=True),
    F.binary_cross_entropy: LossFunction("binary_cross_entropy", chance="halves"),
    F.binary_cross_entropy_with_logits: LossFunction("binary_cross_entropy_with_logits", chance="halves"),
    F.soft_margin_loss: LossFunction("soft_margin_loss", chance="halves"),
    F.multilabel_soft_margin_loss: LossFunction("multilabel_soft_margin_loss", chance="halves", whole=True),
    F.multilabel_margin_loss: LossFunction("multilabel_margin_loss", whole=True),
    F.hinge_embedding_loss: LossFunction("hinge_embedding_loss"),
    F.mse_loss: LossFunction("mse_loss", weighs=True),
    F.l1_loss: LossFunction("l1_loss", weighs=True),
    F.smooth_l1_loss: LossFunction("smooth_l1_loss"),
    F.huber_loss: LossFunction("huber_loss", weighs=True),
    F.gaussian_nll_loss: LossFunction("gaussian_nll_loss"),
    F.poisson_nll_loss: LossFunction("poisson_nll_loss"),
    F.kl_div: LossFunction("kl_div", "distribution"),
}
