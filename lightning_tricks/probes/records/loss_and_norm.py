"""What is known about the calls at the ends of a network that are no layers: losses and batch normalisations."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from lightning_tricks.probes.records.record import StepRecord
from lightning_tricks.stats import MomentSums

__all__ = ["LossRecord", "NormalizationRecord"]


@dataclasses.dataclass(frozen=True)
class LossRecord(StepRecord):
    """One call of a loss function of torch.nn.functional.

    Args:
        name: Named as every call: ``"cross_entropy"`` outside of the model, ``"criterion"`` by a module of that name.
        function: ``"cross_entropy"``, ``"nll_loss"``, ``"binary_cross_entropy_with_logits"``, ``"mse_loss"`` ...
        order: Position among all recorded calls of the step.
        input_shape: Shape of the network's output as the loss received it.
        target_shape: Shape of the target.
        patterns: Number of patterns looked at (batch x positions).
        outputs: Number of outputs a pattern has: the classes, for those losses that have any.
        value: The loss of this call as a mean, whatever its reduction: over patterns where a pattern has one loss (by
            the weights of the classes if there are any), over elements where each output has its own.
        chance: The loss of a uniform guess: ln C, ln 2 for two-sided logits (with weights, what they make of it); NaN
            where there is none.
        input_mean, input_std, input_min, input_max: Over all inputs looked at.
        zero_share: Share of inputs that are exactly zero.
        sum_error: Largest abs(sum over outputs of input - 1): under 1e-3 where the inputs are probabilities.
        log_sum_error: Largest abs(log sum exp over outputs of input): under 1e-3 where they are log-probabilities.
        target_mean, target_std, target_min, target_max: Over all targets looked at; class numbers count as numbers,
            those to be ignored are left out.
        input_variation: Largest std over patterns of an output, over the largest root mean square of an output: 0 where
            the loss is given the same for every pattern. Of several batches the largest.
        input_resolution: Relative rounding error of the input's number format.
        several_share: Share of the target rows that are nothing but 0 and several 1; NaN where targets are no rows of
            classes.
        shift: By how many positions later the targets stand among the tokens that went in (1 wherever that fits); NaN
            where none fits, or it is not known which output belongs to which token.
        distinct_classes: Number of classes among the targets looked at; 0 where these are no class numbers.
        class_counts: How often each class is among them; empty where there are more than 100.
        target_means: Mean target of each output; empty for class numbers, for one output and for more than 100.
        wanted, answered, right: How often each class was wanted, is what the outputs answer, and both; of outputs that
            each say yes or no, how often no and yes. Empty where that is unknown, or there are more than 100 classes.
        class_weights: The weight of each class as the call was given it; of outputs that say yes or no what a no weighs
            and what a yes does, on average. Empty without weights.
        smoothing: ``label_smoothing`` of the call; NaN in an old record, which does not tell of weights either.
        weighted: The name of the weighted record whose output came in with nothing but linear operations between, or
            through the activation; where that is unknown, of the last one before the loss; None without any.
        activation: The name of the activation record whose output came in with nothing but linear operations between.
        reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"batchmean"``, as the call asked for; empty in an old record.
        bound: The largest size of the input where it is cosines of patterns and weights, times a number: that number;
            NaN for any other input, and where a tensor scales them.
        arguments: What the call was given beside inputs and targets, where it is no default, as
            ``"weight=[5], label_smoothing=0.1"``, of tensors their shapes.
        terms: Number of losses that the call has before it reduces them: by patterns where a pattern has one loss, else
            by elements. A sum is this many times the mean. 0 in an old record.
        layer_shape, unit_axis: Of the output of that weighted record its shape, and the dimension of its units, counted
            from the end; known where views, permutations and scales alone lie between. Empty and 0 where unknown.
        positions: From how many positions of that output the classes of one pattern come: 1 where they are its units,
            0 where that is unknown. Of at most 256 classes.
    """

    function: str = ""
    order: int = 0
    input_shape: tuple[int, ...] = ()
    target_shape: tuple[int, ...] = ()
    patterns: int = 0
    outputs: int = 0
    value: float = math.nan
    chance: float = math.nan
    input_mean: float = math.nan
    input_std: float = math.nan
    input_min: float = math.nan
    input_max: float = math.nan
    zero_share: float = math.nan
    sum_error: float = math.nan
    log_sum_error: float = math.nan
    target_mean: float = math.nan
    target_std: float = math.nan
    target_min: float = math.nan
    target_max: float = math.nan
    input_variation: float = math.nan
    input_resolution: float = math.nan
    several_share: float = math.nan
    shift: float = math.nan
    distinct_classes: int = 0
    class_counts: tuple[int, ...] = ()
    target_means: tuple[float, ...] = ()
    wanted: tuple[int, ...] = ()
    answered: tuple[int, ...] = ()
    right: tuple[int, ...] = ()
    class_weights: tuple[float, ...] = ()
    smoothing: float = math.nan
    weighted: str | None = None
    activation: str | None = None
    reduction: str = ""
    terms: int = 0
    bound: float = math.nan
    layer_shape: tuple[int, ...] = ()
    unit_axis: int = 0
    positions: int = 0
    arguments: str = ""

    def merge(self, other: LossRecord) -> LossRecord:
        """The record of the patterns of both."""
        weights = self.patterns, other.patterns
        numbers = {
            name: _mean(self, other, name, weights) for name in ("value", "input_mean", "zero_share", "target_mean")
        }
        numbers["input_variation"] = math.sqrt(_mean(self, other, "input_variation", weights, 2))
        numbers["several_share"] = _mean(self, other, "several_share", weights)
        numbers |= {f"{kind}_std": _joint_std(self, other, kind, weights) for kind in ("input", "target")}
        lowest = ("input_min", "target_min")
        highest = ("input_max", "target_max", "sum_error", "log_sum_error", "input_resolution")
        numbers |= {name: float(np.minimum(getattr(self, name), getattr(other, name))) for name in lowest}
        numbers |= {name: float(np.maximum(getattr(self, name), getattr(other, name))) for name in highest}
        numbers["shift"] = float(np.fmin(self.shift, other.shift))
        counts = {name: _added(self, other, name) for name in ("class_counts", "wanted", "answered", "right")}
        distinct = sum(map(bool, counts["class_counts"])) or max(self.distinct_classes, other.distinct_classes)
        changed: dict[str, Any] = {
            "patterns": sum(weights),
            "distinct_classes": distinct,
            "target_means": _added(self, other, "target_means", *(each / max(sum(weights), 1) for each in weights)),
            "class_weights": _known_mean(self.class_weights, other.class_weights),
            **counts,
            **numbers,
        }
        return dataclasses.replace(self, **changed)


@dataclasses.dataclass(frozen=True)
class NormalizationRecord(StepRecord):
    """One call of a batch normalisation that keeps running statistics.

    Args:
        name: Named as every call: the path of the module.
        order: Position among all recorded calls of the step.
        channels: Number of channels.
        samples: Size of the batch.
        patterns: Number of patterns per channel that the batch statistics are taken over.
        training: Whether it normalises by the statistics of the batch, not by the running ones.
        momentum: Weight of the new statistics in the running ones; NaN where it is unknown.
        follows: The name of the weighted record whose output it takes, only linear operations between; None else.
        follows_bias: Whether that operation adds a bias, which the normalisation takes away again.
        dropout: p of the dropout whose output it takes with nothing between; 0 else.
        mean_gap: Root mean square over channels of (E x - running mean) / running std, as they were before the call.
        log_variance_gap: Root mean square over channels of ln(var(x) / running variance).
        variance_ratio: exp of the mean over channels of ln(var(x) / running variance).

    Both variances are unbiased, as the running one is, and have the layer's eps added, as where it divides by them.
    """

    order: int = 0
    channels: int = 0
    samples: int = 0
    patterns: int = 0
    training: bool = True
    momentum: float = math.nan
    follows: str | None = None
    follows_bias: bool = False
    dropout: float = 0.0
    mean_gap: float = math.nan
    log_variance_gap: float = math.nan
    variance_ratio: float = math.nan

    def merge(self, other: NormalizationRecord) -> NormalizationRecord:
        """The record of both: each rank normalises by the statistics of its own batch, so the sizes stay."""
        weights = self.patterns, other.patterns
        return dataclasses.replace(
            self,
            mean_gap=math.sqrt(_mean(self, other, "mean_gap", weights, 2)),
            log_variance_gap=math.sqrt(_mean(self, other, "log_variance_gap", weights, 2)),
            variance_ratio=math.sqrt(self.variance_ratio * other.variance_ratio),
        )


def _mean(one: StepRecord, other: StepRecord, name: str, weights: tuple[int, int], power: int = 1) -> float:
    total = sum(weights)
    if not total:
        return math.nan
    return (weights[0] * getattr(one, name) ** power + weights[1] * getattr(other, name) ** power) / total


def _added(one: StepRecord, other: StepRecord, name: str, times: float = 1, others: float = 1) -> tuple[Any, ...]:
    """Of two vectors of one length, entry for entry; empty of others."""
    first, second = getattr(one, name), getattr(other, name)
    if len(first) != len(second):
        return ()
    return tuple(times * a + others * b for a, b in zip(first, second, strict=True))


def _known_mean(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    """Entry for entry: a batch in which a class is not wanted does not know what it weighs."""
    if len(one) != len(other):
        return ()
    return tuple(b if math.isnan(a) else a if math.isnan(b) else (a + b) / 2 for a, b in zip(one, other, strict=True))


def _joint_std(one: StepRecord, other: StepRecord, kind: str, weights: tuple[int, int]) -> float:
    both, another = (
        MomentSums(count, getattr(record, f"{kind}_mean"), count * getattr(record, f"{kind}_std") ** 2)
        for record, count in zip((one, other), weights, strict=True)
    )
    joint = both.merge(another)
    return math.sqrt(joint.variance) if joint.count else math.nan
