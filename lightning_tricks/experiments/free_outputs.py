"""free_outputs: what would a guess lose, and what could the best outputs of all lose, of any loss?"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Trait
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.experiments.asking.asks import Answer, LossFunction, asks, copied, same_draws
from lightning_tricks.experiments.asking.least_loss import BoundlessError, Loss, Search, Values
from lightning_tricks.experiments.asking.outputs import Caught, catch
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.asking.sampling import drawn, is_plain
from lightning_tricks.experiments.preflight.patterns import Collation, NotAskedError
from lightning_tricks.experiments.training import Training
from lightning_tricks.model.batches import tensors_in

_SAME = 1e-6  # two runs of one loss, relative to it
_SECONDS = 5.0  # for a look at all targets, which ends with the first that differs


@asks("What would a guess lose on this batch, and what the best outputs of all?")
def free_outputs(model: nn.Module | Training, batch: Any, loss_fn: LossFunction | None = None) -> Answer:
    """The loss of a guess and the floor of the loss, found by minimising the model's own loss over its outputs.

    What the outermost call that leads to the loss returns is replaced by one constant for all patterns (the guess), and
    by a free tensor (the floor), once through the activation behind the last layer and once without it.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        batch: One batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.

    Returns:
        Numbers: ``guess``, ``floor`` (of free outputs), ``reachable`` (the floor through the last activation), ``loss``
        (the model's, in the mode it trains in), ``share`` of the way (0 is a guess's, 1 the floor), all of this batch:
        of few patterns a guess loses less than of all. A loss without a lower bound has a floor of minus infinity, and
        no guess. A loss that draws random numbers is given the same ones for all outputs. Not conclusive where it draws
        them from a generator of its own, or is computed inside of the network.

        How to read it: floor = guess: outputs and targets are broadcast, or a constant is right for all patterns; a
        floor far above ``reachable``'s: the last activation keeps the outputs from the targets; a floor over a third
        of the guess: this loss is not made for these targets, or they contradict each other.

    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> batch = torch.randn(64, 8), torch.arange(64) % 2
    >>> found = free_outputs(net, batch, nn.functional.cross_entropy)
    >>> round(found.numbers["guess"], 3), round(found.numbers["floor"], 3)
    (0.693, 0.0)
    """
    training = copied(model, loss_fn)
    caught = catch(training.module, lambda: training.loss(batch))
    loss = _of_outputs(training, caught, batch)
    values = [output.value for output in caught.outputs]
    first, again = (float(loss(values).detach()) for _ in range(2))
    if not math.isfinite(first):
        raise NotAskedError(f"the loss is {first}")
    if not abs(first - again) <= _SAME * max(abs(first), 1e-12):
        raise NotAskedError("the loss draws random numbers of its own")
    search = Search(caught.outputs, Collation.of(batch), list(tensors_in(batch)), loss)
    try:
        guess, floor, reachable = search.constant(), search.free(), search.through_activation()
        floor = 0.0 if abs(floor) < _SAME * abs(guess) else min(floor, guess)
    except BoundlessError:
        return Answer("the loss has no lower bound", {"guess": math.nan, "floor": -math.inf, "loss": first})
    value = float(caught.loss.detach())
    numbers = {"guess": guess, "floor": floor, "reachable": reachable if search.activation else floor}
    numbers |= {"loss": value, "share": share(value, guess, floor)}
    text, place = f"on this batch a guess has {guess:.4g}, the floor {floor:.4g}", ""
    if search.activation and reachable > floor + 0.01 * abs(guess - floor):
        place = search.activation
        text += f", behind {place} {reachable:.4g}"
    return Answer(f"{text}, the model {numbers['loss']:.4g}", numbers, place=place)


def share(loss: float, guess: float, floor: float) -> float:
    """How much of the way from a guess to the floor a loss has gone; NaN where there is no way.

    >>> share(0.5, guess=2.0, floor=0.0)
    0.75
    """
    way = guess - floor
    return (guess - loss) / way if way > _SAME * max(abs(guess), abs(floor), 1e-12) else math.nan


def _of_outputs(training: Training, caught: Caught, batch: Any) -> Loss:
    def loss(values: Values) -> Tensor:
        with same_draws(), caught.replaced(values):  # a loss that draws random numbers draws the same for all values
            return training.loss(batch)

    return loss


@thresholds
class LIMITS:
    out_of_reach: float = 0.3  # of the way from a guess to the floor: targets that are rounded or smoothed keep less
    patterns: int = 64  # that are all the targets: fewer may be the same in a test of one's own code


def _out_of_reach(found: Experiment) -> float:
    """The share of the way that the last activation keeps the outputs from; NaN where that is not known."""
    guess, floor, reachable = (found.numbers.get(name, math.nan) for name in ("guess", "floor", "reachable"))
    return 1 - share(reachable, guess, floor)


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    """A last activation that keeps the outputs from their targets, whatever the loss; targets that are all the same."""
    numbers, step = found.numbers, subject.diagnosis.history[-1].step
    if numbers["guess"] == numbers["floor"] < numbers["loss"] and (alike := all_alike(subject)) >= LIMITS.patterns:
        text = (
            f"All {alike} targets of the data are the same: one constant output has a loss of {numbers['guess']:.4g}, "
            "as low as any outputs can. Nothing can be learned from them."
        )
        look = Remedy("check_targets", "look where the targets come from: another column, key or folder may be meant")
        same = (Criterion("targets that are the same", alike, ">=", LIMITS.patterns),)
        yield Finding("target_mismatch", None, "warning", step, dict(numbers), text, (look,), decided_by=same)
    why = Criterion("share of the way that is out of reach", _out_of_reach(found), ">", LIMITS.out_of_reach)
    if not why.holds or subject.knows("output_mismatch", "collapsed_output", "target_mismatch"):
        return
    last, layer = subject.diagnosis.history[-1], None
    calls = [(record.order, record.name, record.function) for record in last.activations]
    calls += [(record.after, record.name, record.function) for record in last.softmaxes]
    name = found.place
    layer = max((call for call in calls if call[2] == name), default=(0, None, ""))[1]
    explanation = (
        f"No outputs behind {name} have a loss under {found.numbers['reachable']:.4g} on one batch; without it it "
        f"could fall to {found.numbers['floor']:.4g}, and a guess has {found.numbers['guess']:.4g}."
    )
    todo = Remedy("remove_output_activation", f"take {name} away from behind the last layer", layer)
    numbers = {key: found.numbers[key] for key in ("guess", "reachable", "floor")}
    kinds = frozenset([Trait.IN_CODE])
    yield Finding(
        "output_mismatch", layer, "warning", last.step, numbers, explanation, (todo,), traits=kinds, decided_by=(why,)
    )


def _proves(found: Experiment, finding: Finding) -> bool:
    floor, guess = found.numbers.get("floor", math.nan), found.numbers.get("guess", math.nan)
    if finding.problem == "target_mismatch":
        return floor == -math.inf or not guess > floor
    no_way = not share(floor, guess, floor) > 0  # broadcast: the best outputs of all lose what a guess does
    return finding.problem == "output_mismatch" and (_out_of_reach(found) > LIMITS.out_of_reach or no_way)


def all_alike(subject: Subject) -> int:
    """The number of targets, if all of the data have the same; 0 where they differ, are too many, or are not used."""
    if not is_plain(subject.data) or _target(subject.batch) is None:
        return 0
    first, count, begun = _target(subject.batch), 0, time.perf_counter()
    for batch in drawn(subject.data):
        target = _target(batch)
        if target is None or not bool((target == first.flatten()[0]).all()):
            return 0
        count += len(target)
        if count >= len(subject.data.dataset):
            break
        if time.perf_counter() - begun > _SECONDS:
            return 0
    training, (*inputs, last) = subject.training.copy(), subject.batch
    try:
        with torch.no_grad():
            used = bool(training.loss((*inputs, 1 - last)) != training.loss(subject.batch))
    except NotAskedError:
        used = True  # it does not take such targets
    return min(count, len(subject.data.dataset)) if used else 0


def _target(batch: Any) -> Any:
    """The last entry of a batch."""
    last = batch[-1] if isinstance(batch, (tuple, list)) and len(batch) > 1 else None
    return last if isinstance(last, Tensor) and last.dim() and last.numel() else None


@tried("free_outputs", order=0, brings=_brings, proves=_proves)
def _in_checkup(subject: Subject) -> Experiment:
    return free_outputs(subject.training, subject.batch)
