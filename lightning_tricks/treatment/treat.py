"""treat: changes that are proven to help, one on top of the other, made in the model itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_tricks._compat.compiled import original_of
from lightning_tricks._compat.lightning_module import running_optimizers
from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.experiments.arms import ARMS
from lightning_tricks.experiments.arms.batches import Batches
from lightning_tricks.experiments.arms.kinds.network import DRAW_ANEW, draw_anew, is_finite
from lightning_tricks.experiments.arms.prepared import READING, prepared
from lightning_tricks.experiments.arms.training_run import seed_all
from lightning_tricks.experiments.arms.trial import GAIN, LEAST, Trial, simplest
from lightning_tricks.experiments.arms.trials import LEARNED, Notice, Trials
from lightning_tricks.experiments.asking.asks import without_a_trace
from lightning_tricks.experiments.changes import advice_of, ordered
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.deadline import Deadline, TimeIsUpError
from lightning_tricks.experiments.training.plan import planned_steps
from lightning_tricks.model.arguments import check_module
from lightning_tricks.report.words import rounded
from lightning_tricks.surgery.replace import hand_over
from lightning_tricks.treatment.saved import Saved
from lightning_tricks.treatment.treatment import Proven, Treatment

ROUNDS = 3  # changes on top of each other
TRAINED = 20  # steps after which weights are no longer those of a start


def treat(
    model: nn.Module,
    diagnosis: Diagnosis | None,
    data: Any,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    val_data: Any = None,
    max_seconds: float = 120.0,
    dry_run: bool = False,
    *,
    optimizer: Any = None,
    notice: Notice | None = None,
) -> Treatment:
    """Try what may cure a training on copies, and make the changes that are proven to help in the model, in place.

    Each change is tried for a few steps against the unchanged training, which is given four times as many, as long as
    its Trainer means it to be; it counts where it gains on two seeds on batches that are held back. The simplest are
    tried first, and no others where one leaves nothing to gain; what a warning asks for gets three quarters of the
    unchanged training's steps where nothing is proven in a quarter. The least change with nine tenths of the best gain
    is taken, then the next on top of it, until nothing gains. The model is then at the start of a training, changed and
    not trained; what is no part of it (learning rate, clipping, targets) stands in ``treatment.advice``.

    Args:
        model: A LightningModule, or any module with a ``loss_fn``.
        diagnosis: What was found; what its warnings ask for is tried first. None: all are tried in their order.
        data: Training data as for ``checkup``: a loader, a LightningDataModule, an iterable of batches, one batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.
        val_data: Batches to measure on; by default some of the training are held back.
        max_seconds: When to stop trying; what is known then is used, as after Ctrl-C.
        dry_run: Try, and leave the model as it is.
        optimizer: One that holds parameters of the model, for a module with a loop of one's own. It is given the
            parameters that a change brings.
        notice: Called with a line whenever something is tried. By default a terminal shows it.

    Returns:
        What was tried and done; ``treatment.undo()`` takes it back.

    Raises:
        TypeError: As ``checkup``.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    >>> x = torch.randn(512, 4)
    >>> loader = [(x[i : i + 32], x[i : i + 32, :1]) for i in range(0, 512, 32)]
    >>> sgd = torch.optim.SGD(net.parameters(), lr=1e-5)
    >>> treatment = treat(net, None, loader, nn.functional.mse_loss, optimizer=sgd)
    >>> treatment.applied, treatment.advice["lr"] > 1e-3
    ([], True)
    """
    check_module(model)
    model = original_of(model)
    deadline, treatment = Deadline(max_seconds), Treatment(dry_run=dry_run)
    with without_a_trace():
        try:
            training = Training.of(model, loss_fn, optimizer, planned_steps=planned_steps(model, data))
            batches = Batches.of(data, READING * max_seconds)
            if val_data is not None:
                batches = batches.measured_on(val_data)
            rounds = _Rounds(training, batches, diagnosis, deadline, notice or _Line(deadline))
        except NotAskedError as reason:
            treatment.note = f"not judged: {reason}"
            return treatment
        except TimeIsUpError:
            treatment.note = "cut short"
            return treatment
        try:
            rounds.run()
        except NotAskedError as reason:
            treatment.note = f"not judged: {reason}"
            return treatment
        except TimeIsUpError:
            rounds.complete = False
        finally:
            rounds.notice("")
        rounds.tell(treatment)
        if not dry_run and any(remedy.in_model for remedy in treatment.remedies):
            _apply(model, rounds, treatment, optimizer)
    return treatment


class _Line:
    """Shows on a terminal what is being tried, and how much of the time is over."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline, self._seconds = deadline, deadline.seconds

    def __call__(self, text: str) -> None:
        if sys.stderr.isatty():
            over = self._seconds - self._deadline.left
            shown = f"trying {text} ({over:.0f} of {self._seconds:.0f} s)" if text else ""
            sys.stderr.write(f"\r\x1b[K{shown}")
            sys.stderr.flush()


class _Rounds:
    """Trials, each on top of what won the one before."""

    def __init__(
        self, training: Training, batches: Batches, diagnosis: Diagnosis | None, deadline: Deadline, notice: Notice
    ) -> None:
        history = [] if diagnosis is None else diagnosis.history
        self.training, self.batches, self.deadline, self.notice = training, batches, deadline, notice
        self.advised = advice_of([] if diagnosis is None else diagnosis.findings)
        self.arms = ordered(ARMS, self.advised)
        self.was_trained = training.begun >= TRAINED or (bool(history) and history[-1].step >= TRAINED)
        self.first: Trials | None = None  # from the weights that are there
        if is_finite(training.module):
            self.first = prepared(training, batches, self.was_trained, deadline, notice)
        self.rounds: list[Trials] = []
        self.winners: list[tuple[Trials, Trial]] = []
        self.complete = True

    def run(self) -> None:
        """From the weights that are there; where they are ruins, whatever is changed, from new ones."""
        if self.first is None:
            self._from_the_start(0.0)
        elif not self.was_trained:
            self._rounds(self.first)
        else:
            self.deadline.seconds /= 2
            self._rounds(self.first)
            self.deadline.seconds *= 2
            if not self.winners and self.first.best < LEARNED:
                self._from_the_start(self.first.best)

    def _from_the_start(self, stuck: float) -> None:
        """As the training would go from weights that are drawn anew."""
        training = self.training.copy()
        seed_all(0)
        draw_anew(training.module)
        training.renew()
        anew = prepared(training, self.batches, False, self.deadline, self.notice)
        self._rounds(anew)
        trial = Trial(DRAW_ANEW, anew.best - stuck, anew.best, stuck, declared=True, runs=dict(anew.bases))
        trial.proven = bool(self.winners) or trial.gain > GAIN["rebuild"]
        if trial.proven:
            self.winners.insert(0, (anew, trial))

    def _rounds(self, trials: Trials) -> None:
        for _ in range(ROUNDS):
            self.rounds.append(trials)
            used = {trial.arm.name for _, trial in self.winners}
            rebuilt = any(trial.arm.group == "rebuild" for _, trial in self.winners)  # once is enough
            arms = [arm for arm in self.arms if arm.name not in used and not (rebuilt and arm.group == "rebuild")]
            trials.run(arms, enough=LEAST, advised=self.advised)
            winner = simplest(trials.trials, LEAST)
            if winner is None:
                return
            self.winners.append((trials, winner))
            if winner.share >= LEARNED:
                return
            trials = trials.onto(winner)

    def tell(self, treatment: Treatment) -> None:
        """Write down what came of it."""
        for trials, trial in self.winners:
            arm, advice = trial.arm, {}
            if trial.arm is not DRAW_ANEW:
                changed = next(iter(trial.runs.values())).training
                advice = arm.advice(changed, trials.setting)
            in_model = arm.on_model is not None
            treatment.remedies.append(Proven(arm.action, arm.text, trial.place, trial.gain, in_model))
            treatment.advice.update(advice)
            treatment.gains.update(dict.fromkeys(advice, trial.gain))
        treatment.trials = [as_experiment(t, k + 1) for k, trials in enumerate(self.rounds) for t in trials.trials]
        treatment.before = 0.0 if self.first is None else self.first.best
        treatment.after = treatment.before
        if self.winners:
            treatment.after = max(self.rounds[-1].best, *(c.share for c in self.winners[-1][1].runs.values()))
        for trials in self.rounds:
            if not treatment.curves:
                treatment.curves["unchanged"] = [] if 0 not in trials.bases else list(trials.bases[0].held.items())
            for trial in trials.trials:
                if 0 in trial.runs:
                    treatment.curves[trial.arm.name] = list(trial.runs[0].held.items())
        treatment.steps = _steps(self.rounds)
        if not self.complete or not all(trials.complete for trials in self.rounds):
            treatment.note = "cut short"
        elif not self.winners and treatment.before >= LEARNED:
            treatment.note = "it learns as it is"


def _steps(rounds: Sequence[Trials]) -> int:
    """Every training once: that of a winner is the unchanged one of the next round."""
    trials = [trial for each in rounds for trial in each.trials]
    runs = [c for each in rounds for c in each.bases.values()] + [c for t in trials for c in t.runs.values()]
    return sum(run.steps for run in {id(run): run for run in runs}.values())


def as_experiment(trial: Trial, number: int) -> Experiment:
    """A trial of a round as a record."""
    arm, question = trial.arm, f"Does it learn better with one change: {trial.arm.text}?"
    seconds = sum(run.seconds for run in trial.runs.values())
    if trial.reason:
        return Experiment(arm.name, question, trial.reason, seconds=seconds, conclusive=False)
    numbers = {"gain": trial.gain, "share": trial.share, "unchanged": trial.base, "proven": float(trial.proven)}
    numbers |= {"after": trial.reached, "round": number}
    ends = f"from {rounded(trial.base)} to {rounded(trial.share)} of the way"
    answer = f"yes, {ends}" if trial.proven else f"no, {ends}" if trial.gain <= 0 else f"not proven, {ends}"
    curves = {"share": list(trial.runs[0].held.values())} if 0 in trial.runs else {}
    return Experiment(arm.name, question, answer, numbers, curves, trial.steps, seconds)


def _apply(model: nn.Module, rounds: _Rounds, treatment: Treatment, optimizer: Any) -> None:
    """Make the changes in the model; where one fails all are taken back."""
    given = [] if optimizer is None else [getattr(optimizer, "optimizer", optimizer)]
    saved = Saved(model, [*given, *running_optimizers(model)])
    before = set(model.parameters())
    try:
        for trials, trial in rounds.winners:
            if trial.arm.on_model is not None:
                seed_all(0)
                trial.arm.on_model(model, trials.setting)
        after = list(model.parameters())
        gone, new = [p for p in before if p not in set(after)], [p for p in after if p not in before]
        for each in saved.optimizers:
            held = next((p for group in each.param_groups for p in group["params"]), None)
            if held is not None:
                hand_over(each, gone, dict.fromkeys(new, held))
    except BaseException:
        saved.put_back()
        raise
    treatment.applied = [remedy for remedy in treatment.remedies if remedy.in_model]
    treatment._put_back = saved.put_back
