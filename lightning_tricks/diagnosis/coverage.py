"""How much of a training was seen: what a clean verdict rests on, and the doubts that forbid one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from lightning_tricks.diagnosis.history.learning import AT_A_GUESS, LEARNED, TOLD_AFTER, guess_on_validation, level
from lightning_tricks.probes import ParameterRecord, Snapshot

_SEEN: Mapping[str, Callable[[Snapshot], bool]] = {
    "layers": lambda s: bool(s.weighted or s.activations),
    "activations": lambda s: bool(s.activations),
    "error signals": lambda s: any(not math.isnan(record.error_signal) for record in s.weighted),
    "gradients": lambda s: any(not math.isnan(record.gradient) for record in s.parameters),
    "updates": lambda s: any(not math.isnan(record.update) for record in s.parameters),
    "losses": lambda s: not math.isnan(s.loss) or s.nonfinite_loss,
    "validation": lambda s: not math.isnan(s.validation_loss),
    "batch norms": lambda s: bool(s.normalizations),
    "preflight": lambda s: s.preflight is not None,
}
RISES = 5.0  # standard errors within the later half
_FEW = 10  # looks under which experts that no pattern went to, and heads of other tasks, are named and not judged


@dataclasses.dataclass(frozen=True)
class Coverage:
    """What was seen of a training.

    Args:
        looks: The number of probed steps.
        layers: The number of layers, activations included, that ran in one of them.
        trainable: The number of trainable tensors; frozen ones lower no share.
        frozen: The number of frozen tensors.
        gradient: Share of the trainable tensors, over all looks, that had a gradient; 0 where there are none.
        update: Share of them, over all looks, that moved.
        without_gradient: Trainable tensors that never had one, of under 10 looks.
        not_seen: The number of places of which nothing is known.
        judged: Problems whose rule could judge: what it reads was seen.
        not_judged: Those whose rule could not, such as overfitting without a validation.
    """

    looks: int = 0
    layers: int = 0
    trainable: int = 0
    frozen: int = 0
    gradient: float = 0.0
    update: float = 0.0
    without_gradient: tuple[str, ...] = ()
    not_seen: int = 0
    judged: tuple[str, ...] = ()
    not_judged: tuple[str, ...] = ()

    def __str__(self) -> str:
        frozen = f", {self.frozen} frozen" if self.frozen else ""
        rules = len(self.judged + self.not_judged)
        judged = f"; {len(self.judged)} of {rules} rules could judge" if rules else ""
        return (
            f"{count(self.layers, 'layer')}, {count(self.trainable, 'trainable tensor')} (gradient seen in "
            f"{self.gradient:.0%}, update in {self.update:.0%}){frozen}{judged}"
        )


def coverage(history: Sequence[Snapshot], needs: Mapping[str, Collection[str]] | None = None) -> Coverage:
    """What was seen in these snapshots; ``needs`` says of each problem what its rule has to see.

    >>> print(coverage([], {"overfitting": ["losses", "validation"]}))
    0 layers, 0 trainable tensors (gradient seen in 0%, update in 0%); 0 of 1 rules could judge
    """
    seen = {what for what, shows in _SEEN.items() if any(map(shows, history))}
    judged = {problem: bool(history) and seen.issuperset(needed) for problem, needed in (needs or {}).items()}
    layers = {record.name for s in history for record in (*s.weighted, *s.activations)}
    trainable = [record for snapshot in history for record in snapshot.parameters if record.trainable]
    frozen = {record.name for snapshot in history for record in snapshot.parameters if not record.trainable}
    with_gradient = [record.name for record in trainable if not math.isnan(record.gradient)]
    moved = sum(record.update > 0 for record in trainable)
    never = [name for name in dict.fromkeys(record.name for record in trainable) if name not in set(with_gradient)]
    return Coverage(
        len(history),
        len(layers),
        len({record.name for record in trainable}),
        len(frozen - {record.name for record in trainable}),
        len(with_gradient) / max(len(trainable), 1),
        moved / max(len(trainable), 1),
        tuple(never) if len(history) < _FEW else (),
        len({name for snapshot in history for name in snapshot.not_seen}),
        tuple(problem for problem, could in judged.items() if could),
        tuple(problem for problem, could in judged.items() if not could),
    )


def doubt(history: Sequence[Snapshot]) -> str | None:
    """Why a training without a finding cannot be called healthy; None where it can."""
    if not history:
        return "nothing was looked at yet"
    looked = looked_at(history)
    if not any(map(_SEEN["layers"], reversed(history))):
        return f"no layer was seen in {looked}"
    if not any(not math.isnan(record.gradient) for record in _trained(history)):
        return f"no gradient was seen in {looked}"
    if not any(record.update > 0 for record in _trained(history)):
        return f"no weight was seen to move in {looked}"
    now, validation = level(history), history[-1].validation_loss
    if now is None or now.steps < TOLD_AFTER:
        return None
    numbers = f"after {now.steps} steps (loss {now.mean:.4g}, a guess has {now.guess:.4g})"
    if now.at_a_guess:
        return f"not yet better than a guess {numbers}"
    if now.may_be_at_a_guess:
        return f"not surely better than a guess {numbers}"
    if now.share > LEARNED and now.fall < -RISES:
        return f"the loss rises again {numbers}"
    guess = guess_on_validation(history, now.guess)
    if validation >= AT_A_GUESS * guess:
        return f"on validation not better than a guess (loss {validation:.4g}, a guess has {guess:.4g})"
    return None


def _trained(history: Sequence[Snapshot]) -> Iterator[ParameterRecord]:
    """The parameters that can be trained, the latest first."""
    return (record for snapshot in reversed(history) for record in snapshot.parameters if record.trainable)


def looked_at(history: Sequence[Snapshot]) -> str:
    """The probed steps in words."""
    if len(history) == 1:
        return f"1 probed step ({history[0].step})"
    return f"{len(history)} probed steps ({history[0].step} to {history[-1].step})"


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
