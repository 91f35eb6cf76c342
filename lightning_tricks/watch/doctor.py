"""watch: a doctor for any loop."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks.diagnosis import Finding, Rule
from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.model.arguments import check_count, check_module
from lightning_tricks.model.processes import process_rank
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.optimizers import check_optimizer_of, listed
from lightning_tricks.probes.packed import pack, unpack
from lightning_tricks.probes.probe import MAX_PATTERNS
from lightning_tricks.probes.watch.error_guard import ErrorGuard
from lightning_tricks.report import write_folder
from lightning_tricks.report.live import LiveView
from lightning_tricks.watch import selection
from lightning_tricks.watch.errors import MonitorErrors, say
from lightning_tricks.watch.judge import Judge, OnProblem, TrainingProblemError, check_on_problem
from lightning_tricks.watch.loop_probe import LoopProbe
from lightning_tricks.watch.loss_history import LossHistory

EVERY = 50  # as often as Lightning's Trainer logs
_NAME = "lt.watch"
_watching: weakref.WeakKeyDictionary[Any, weakref.ref[LoopDoctor]] = weakref.WeakKeyDictionary()


class LoopDoctor:
    """What :func:`watch` returns; it watches until it is closed, or until nobody holds it any more.

    Attributes:
        diagnosis: The diagnosis up to now; never None.
        history: The snapshots of the steps that were looked at, the oldest first.
        step: The number of optimiser steps up to now.
        should_stop: Whether a problem was met with ``on_problem="stop"``; the loop has to ask for it.
    """

    def __init__(
        self,
        loop: LoopProbe,
        optimizers: Sequence[torch.optim.Optimizer],
        judge: Judge,
        *,
        on_problem: OnProblem,
        report: bool,
        every_n_steps: int,
        max_patterns: int | None,
        layers: str | Sequence[str],
        files: str | Path | None,
    ) -> None:
        self.history: list[Snapshot] = []
        self.should_stop = False
        self.max_patterns = max_patterns
        self.loss_history = LossHistory()
        self.errors = MonitorErrors(_NAME)
        self._loop, self._optimizers, self._judge = loop, list(optimizers), judge
        self._on_problem, self._report, self._every, self._layers = on_problem, report, every_n_steps, layers
        self._files, self._live = files, LiveView()
        self._new: list[Finding] = []
        self._in_block = False
        self._end: Any = None
        self._attach()

    @property
    def step(self) -> int:
        return self._loop.step

    @property
    def diagnosis(self) -> Diagnosis:
        return self._judge.diagnosis(self.history)

    def validated(self, loss: Tensor | float) -> None:
        """Tell the loss of a validation, right after it."""
        if isinstance(loss, Tensor) and loss.numel() == 1:
            loss = float(loss.detach())
        if isinstance(loss, bool) or not hasattr(loss, "__float__") or isinstance(loss, (str, Tensor)):
            raise TypeError(f"the loss of a validation is a number, got {type(loss).__name__}: give its mean")
        selection.set_validation_loss(self.history, float(loss))
        self._judge.changed()

    def close(self) -> None:
        """The training is over: detach from it, and print the table; what was found stays."""
        self._close(ended=True)

    def to_csv(self, path: str | Path) -> Path:
        """Write the history as a tidy table: one row per step, layer and measure."""
        return self.diagnosis.to_csv(path)

    def to_html(self, path: str | Path) -> Path:
        """Write the diagnosis up to now as one page."""
        return self.diagnosis.to_html(path)

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors for a checkpoint, from which ``load_state_dict`` goes on."""
        return {
            "step": self.step,
            "loss_history": self.loss_history.state_dict(),
            "histories": pack([self.history]),
            **self._judge.own_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a history that was saved; one that cannot be read begins anew, with a warning."""

        def begin_anew(error: Exception) -> None:
            self._restore(0, [], {})
            say(
                "the history in this state cannot be read, as it is damaged or of another version: a new one begins "
                f"({type(error).__name__}: {error})"
            )

        with ErrorGuard(begin_anew):
            [history] = unpack(state["histories"])
            self._restore(int(state["step"]), history, state)

    def __enter__(self) -> LoopDoctor:
        if self._in_block:
            raise RuntimeError("this doctor is watching already: a with block inside of its own")
        self._attach()
        self._in_block = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._in_block = False
        self._close(ended=error is None)

    # --- for the looks -------------------------------------------------------------------------------------------

    def should_probe(self, step: int) -> bool:
        return selection.is_probed(step, self._every)

    def on_snapshot(self, snapshot: Snapshot) -> None:
        if not self.history and "*" not in self._judge.shown:
            lost = selection.no_layer_matches(snapshot, self._layers)
            if lost:
                say(f"{_NAME}: {lost}")
        selection.append(self.history, snapshot)
        self._judge.changed()
        self._new += self._judge.news(self.history)
        self._show_live()

    def act(self) -> None:
        new, self._new = self._new, []
        for finding in new:
            if self._on_problem == "raise":
                raise TrainingProblemError(finding)
            self.should_stop = self.should_stop or self._on_problem == "stop"
            if self._on_problem != "log":
                say(str(finding))

    # --- internals -----------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        if self._end is not None:
            return
        for optimizer in self._optimizers:
            other = _watching.get(optimizer, lambda: None)()
            if other is not None:
                other._close(ended=True)
            _watching[optimizer] = weakref.ref(self)
        if self.history and self.history[-1].ended:
            self.history[-1] = dataclasses.replace(self.history[-1], ended=False)
            self._judge.changed()
        self._loop.attach(weakref.ref(self))
        self._end = weakref.finalize(self, _let_go, self._loop)
        self._end.atexit = False

    def _close(self, *, ended: bool) -> None:
        if self._end is None:
            return
        self._end.detach()
        self._end = None
        self._loop.detach()
        for optimizer in self._optimizers:
            _watching.pop(optimizer, None)
        if self.history and ended:
            self.history[-1] = dataclasses.replace(self.history[-1], ended=True)
        self._judge.changed()
        if self.history and process_rank() == 0:
            with self.errors:
                self._tell()

    def _show_live(self) -> None:
        if self._report and process_rank() == 0:
            self._live.update(self.diagnosis)

    def _tell(self) -> None:
        if self._report:
            self._show_live()
            self.diagnosis.show()
        if self._files is not None:
            try:
                write_folder(self.diagnosis, self._files)
            except OSError as error:
                say(f"{_NAME} {error.strerror or error}. The history is whole: doctor.to_csv(path) writes it elsewhere")

    def _restore(self, step: int, history: list[Snapshot], state: Mapping[str, Any]) -> None:
        self.loss_history = LossHistory()
        if "loss_history" in state:
            self.loss_history.load_state_dict(state["loss_history"])
        self.history = history
        self._judge.restore(state)
        self._loop.begin_at(step)


def _let_go(loop: LoopProbe) -> None:
    """Nobody holds the doctor any more."""
    loop.detach()
    if not loop.step:
        say("the doctor that lt.watch returned was not kept and saw no step: write `doctor = lt.watch(...)`")


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    *,
    on_problem: OnProblem = "warn",
    report: bool = True,
    ignore: Sequence[str] = (),
    rules: Sequence[Rule] = (),
    preflight: bool = True,
    every_n_steps: int = EVERY,
    layers: str | Sequence[str] = "*",
    max_patterns: int | None = MAX_PATTERNS,
    loader: Any = None,
    files: str | Path | None = None,
) -> LoopDoctor:
    """A doctor for any loop: plain PyTorch, Lightning Fabric, accelerate.

    From here on the optimiser's steps are counted and some of them looked at, as the
    :class:`lightning_tricks.TrainingDoctor` does; a step is one of the optimiser, however many batches it accumulates.
    Losses are seen when they go backward, without the scale of a GradScaler. Findings are told when they are found, and
    at the end of the block, also after an exception, the table is printed. The training stays bit for bit what it
    would have been, and nothing is left behind when the doctor is closed.

    Where several processes train together each judges what it sees, and the first one tells.

    Args:
        model: Any module, as it is called in the loop.
        optimizer: Its optimiser or several: then a step is over when each has made its own, or one begins another.
        on_problem: What to do at a new problem of severity ``"warning"`` or ``"critical"``: ``"warn"`` once per problem
            and layer, ``"stop"``: warn and set ``doctor.should_stop``, ``"raise"`` a TrainingProblemError out of
            ``optimizer.step()``, or only ``"log"``.
        report: Whether the table is printed at the end, and in a notebook a line shown on the way.
        ignore: Problems that are not to be found, such as ``("bias_shift", "dead_units:encoder.*")``.
        rules: Rules of your own, made by ``lightning_tricks.rule``, beside those of the package.
        preflight: Whether the network is asked, after the first step and with at most four further forwards on a copy,
            whether patterns of a batch mix and whether a sequence sees what it is to predict.
        every_n_steps: Look at optimiser steps 0, 1, 2, 4, 8, ... up to this number, then at every multiple of it.
        layers: A glob, or several, of the names to show, such as ``"encoder.*"``; judged are all layers.
        max_patterns: The most patterns (batch x space x time) per unit that are read; None for all.
        loader: The DataLoader of the training, from which the preflight learns the batch size where shapes do not
            tell it.
        files: A folder for ``diagnosis.html``, ``history.csv`` and pictures, written at the end; None: no files.

    Raises:
        TypeError: ``model`` is no module, or ``optimizer`` no optimiser.
        ValueError: The optimiser holds no parameter of the model, a count is under 1, ``on_problem`` or a name in
            ``ignore`` is unknown, or there is a rule for a problem already.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> optimizer = torch.optim.SGD(net.parameters(), 0.1)
    >>> with watch(net, optimizer, report=False) as doctor:
    ...     for _ in range(3):
    ...         optimizer.zero_grad()
    ...         net(torch.randn(32, 4)).square().mean().backward()
    ...         optimizer.step()
    >>> doctor.step, len(doctor.history)
    (3, 3)
    """
    check_module(model)
    if every_n_steps is None:
        raise ValueError("every_n_steps must be a whole number of at least 1, got None")
    check_count("every_n_steps", every_n_steps)
    check_count("max_patterns", max_patterns, "None for all patterns")
    check_on_problem(on_problem)
    # What Fabric and accelerate wrap is an optimizer's .optimizer.
    optimizers = [getattr(each, "optimizer", each) for each in listed(optimizer)]
    for each in optimizers or [None]:
        check_optimizer_of(model, each)
    shown = selection.as_globs("layers", layers)
    return LoopDoctor(
        LoopProbe(model, optimizers, loader=loader, preflight=preflight),
        optimizers,
        Judge(ignore, rules, shown),
        on_problem=on_problem,
        report=report,
        every_n_steps=every_n_steps,
        max_patterns=max_patterns,
        layers=layers,
        files=files,
    )
