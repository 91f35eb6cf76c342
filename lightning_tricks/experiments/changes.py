"""changes: which one change of a training makes it learn?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Trait
from lightning_tricks.diagnosis.registry import PROBLEMS
from lightning_tricks.experiments.arms import ARMS, Arm
from lightning_tricks.experiments.arms.batches import Batches
from lightning_tricks.experiments.arms.kinds.rates import RATES
from lightning_tricks.experiments.arms.prepared import READING, prepared
from lightning_tricks.experiments.arms.training_runs import STILL
from lightning_tricks.experiments.arms.trial import GAIN, Trial, cause_of
from lightning_tricks.experiments.arms.trials import LEARNED, SHORTEST, Trials
from lightning_tricks.experiments.asking.asks import Answer, LossFunction, WrongArgumentError, asks, copied
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.deadline import Deadline
from lightning_tricks.experiments.training.plan import planned_steps
from lightning_tricks.model.arguments import unknown_name
from lightning_tricks.report.words import rounded

QUESTION = "Which one change makes it learn?"
# What these say of the first steps is wrong where the training has learned; other faults are there all the same.
SLOWED = ("output_mismatch", "learning_rate_too_low", "vanishing_gradient", "poor_initialization")
# Share of the way at which a training without a warning needs no change: of 138 sick ones one gained beyond it that was
# not named otherwise, and of 71 healthy ones that were tried all the same, 47 had come so far.
WITHOUT_A_WARNING = 0.5
UNDONE = 0.25  # and from here on it is only asked what is to be undone: of 241 no other gained that was not named
MOST = 0.5  # of the input, and the training stands at a guess's loss: the other half would have told
_BY_NAME = {arm.name: arm for arm in ARMS}


@asks(QUESTION)
def changes(
    model: nn.Module | Training,
    data: Any,
    loss_fn: LossFunction | None = None,
    optimizer: Any = None,
    *,
    names: Sequence[str] | None = None,
    max_seconds: float = 60.0,
) -> Answer:
    """Try one change after the other on copies, each for a few steps against the unchanged training.

    The unchanged training gets four times as many steps, as far as its Trainer means it to go on, and a change counts
    only where it beats the best point of those on two seeds, on batches that are held back. What rebuilds the network
    or changes the learning rate also has to gain on batches that were trained on.

    Args:
        model: A LightningModule, or any module with a ``loss_fn``.
        data: Training data: a loader, a LightningDataModule, an iterable of batches, or one batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.
        optimizer: One that holds parameters of the model.
        names: Which changes; by default all that concern this training.
        max_seconds: When to stop; what is known then is the answer.

    Returns:
        Numbers, all of copies of the network as it was given: ``unchanged``, the share of the way from a guess to the
        floor that the training comes as it is; under each change's name what it comes to with it; ``gain of NAME`` for
        those that are proven, the smaller one of two seeds. Curves: shares over steps, by name.

        How to read it: a proven change is a cure; the first of the answer is the simplest of those, which undoes
        something rather than making something new, and so comes nearest to the cause.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    >>> x = torch.randn(512, 4)
    >>> loader = [(x[i : i + 32], x[i : i + 32, :1]) for i in range(0, 512, 32)]
    >>> sgd = torch.optim.SGD(net.parameters(), lr=1e-5)
    >>> found = changes(net, loader, nn.functional.mse_loss, sgd, names=["raise_learning_rate"])
    >>> found.numbers["gain of raise_learning_rate"] > 0.5
    True
    """
    unknown = [name for name in names or () if name not in (*_BY_NAME, *RATES)]
    if unknown:
        raise WrongArgumentError(unknown_name("change", unknown[0], (*_BY_NAME, *RATES)))
    training = copied(model, loss_fn, optimizer)
    training.planned_steps = planned_steps(model, data)
    trials = prepared(training, data, False, Deadline(max_seconds))
    arms = list(ARMS) if names is None else [_BY_NAME[name] for name in names if name in _BY_NAME]
    rates = RATES if names is None else [name for name in RATES if name in names]
    trials.run(arms, rates=rates, always=names is not None)
    return answer(trials)


def answer(trials: Trials) -> Answer:
    """What came of trials."""
    cause, numbers = cause_of(trials.trials), {"unchanged": trials.best}
    curves = {"unchanged": list(trials.base().held.values())} if trials.bases else {}
    steps = sum(run.steps for run in trials.bases.values())
    for trial in sorted(trials.trials, key=lambda each: (not each.proven, -each.gain)):
        steps += sum(run.steps for run in trial.runs.values())
        if trial.reason or 0 not in trial.runs:
            continue
        numbers[trial.arm.name] = trial.share
        curves[trial.arm.name] = list(trial.runs[0].held.values())
        if trial.proven:
            numbers[f"gain of {trial.arm.name}"] = trial.gain
    cut = "" if trials.complete else "; cut short"
    if cause is not None:
        text = f"{cause.arm.text}: from {rounded(cause.base)} to {rounded(cause.share)} of the way{cut}"
        others = [t.arm.name for t in trials.trials if t.proven and t is not cause]
        return Answer(text + (f" (also {', '.join(dict.fromkeys(others))})" if others else ""), numbers, curves, steps)
    text = f"none of {len(trials.trials)}; it comes {rounded(trials.best)} of the way{cut}"
    made = trials.bases[0].steps if trials.bases else 0
    stands = made >= trials.last(SHORTEST) and trials.best < STILL
    doubt = f"no fault was seen, but in {made} steps the loss on held-back data stays at that of a guess"
    return Answer(text, numbers, curves, steps, doubt=doubt if stands else "")


def _proven_arms(found: Experiment) -> list[str]:
    return [name.removeprefix("gain of ") for name in found.numbers if name.startswith("gain of ")]


def _actions(found: Experiment) -> set[str]:
    return {_BY_NAME[name].action if name in _BY_NAME else name for name in _proven_arms(found)}


def _proves(found: Experiment, finding: Finding) -> bool:
    """Whether what the finding advises was seen to help."""
    return bool(finding.rank and _actions(found) & {remedy.action for remedy in finding.remedies})


def _refutes(found: Experiment, finding: Finding) -> bool:
    """Whether it says that the training is slowed, and the training learned what there is without any change."""
    learned = found.numbers["unchanged"] >= LEARNED
    return (
        learned and finding.severity == "warning" and finding.problem in SLOWED and Trait.IN_CODE not in finding.traits
    )


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    """What the simplest proven change stands for, where the rules say nothing of the kind."""
    cause: Trial | None = subject.notes.get("changes")
    if cause is None:
        yield from _unread(subject, found)
        return
    if subject.knows(cause.arm.problem):
        return
    remedies = [remedy for finding in subject.diagnosis.findings if finding.rank for remedy in finding.remedies]
    if cause.arm.action in {remedy.action for remedy in remedies}:
        return
    yield finding_of(cause, subject.diagnosis.history[-1].step)


def _unread(subject: Subject, found: Experiment) -> Iterator[Finding]:
    """Where the loss stays at that of a guess whatever is changed, and most of the input has no influence."""
    read = subject.done.get("never_read")
    if not found.doubt or read is None or not read.conclusive or subject.knows(*PROBLEMS):
        return
    share = read.numbers["never_read"] / max(read.numbers["features"], 1.0)
    most = Criterion("share of the input features without any influence", share, ">=", MOST)
    if not most.holds or share >= 1.0:
        return
    explanation = (
        f"The loss stays at that of a guess, and {rounded(share)} of the input have exactly no influence on the "
        f"outputs ({read.answer}): what would tell the targets may be there."
    )
    todo = Remedy("read_input", "look at the index by which an output or a part of the input is taken, as out[:, 0]")
    step = subject.diagnosis.history[-1].step
    yield Finding("not_learning", None, "warning", step, {most.name: share}, explanation, (todo,), decided_by=(most,))


def finding_of(trial: Trial, step: int) -> Finding:
    """A proven change as a finding."""
    arm = trial.arm
    evidence = {"share of the way": trial.share, "share of the way, unchanged": trial.base, "share gained": trial.gain}
    text = (
        f"On copies of the network as it was given, the loss comes {rounded(trial.share)} of the way from a guess to "
        f"the floor with one change, in {trial.reached} steps, and {rounded(trial.base)} without it in "
        f"{rounded(trial.times)} times as many."
    )
    why = Criterion("gain, as a share of the way", trial.gain, ">", GAIN[arm.group])
    layer = trial.place if arm.on_model is not None else None
    todo = arm.text if layer == trial.place else f"{arm.text}: {trial.place}"
    remedy = Remedy(arm.action, todo, layer)
    return Finding(arm.problem, layer, "warning", step, evidence, text, (remedy,), decided_by=(why,))


@tried("changes", "trainings", order=1, brings=_brings, proves=_proves, refutes=_refutes)
def _in_checkup(subject: Subject) -> Experiment:
    return _asked(subject)


def _trials(subject: Subject) -> Answer:
    begun = time.perf_counter()
    if isinstance(subject.data, Iterator):
        raise NotAskedError("the data can be read only once")
    batches = Batches.of(subject.data, READING * subject.seconds_left)
    if not batches.apart:
        raise NotAskedError("of one batch nothing can be held back")
    trials = prepared(subject.training.copy(), batches, False, subject.deadline)
    advised = advice_of(subject.diagnosis.findings)
    learned, undone = (LEARNED, LEARNED) if advised else (WITHOUT_A_WARNING, UNDONE)
    trials.run(ordered(ARMS, advised), advised=advised, learned=learned, undone=undone)
    subject.notes["changes"] = cause_of(trials.trials)
    subject.notes["learned"] = trials.best >= LEARNED
    if not trials.bases:
        raise NotAskedError(f"no time was left after {time.perf_counter() - begun:.0f} s")
    return answer(trials)


_asked = asks(QUESTION, "changes")(_trials)


def advice_of(findings: Sequence[Finding]) -> list[str]:
    """The actions that warnings advise, in their order."""
    trees = (each for finding in findings for each in _tree(finding) if each.rank)
    return [remedy.action for each in trees for remedy in each.remedies]


def ordered(arms: Sequence[Arm], advised: Sequence[str]) -> list[Arm]:
    """What is advised first; the order of the arms else."""
    rank = {action: index for index, action in reversed(list(enumerate(advised)))}
    return sorted(arms, key=lambda arm: rank.get(arm.action, len(advised)))


def _tree(finding: Finding) -> list[Finding]:
    return [finding, *(each for consequence in finding.consequences for each in _tree(consequence))]
