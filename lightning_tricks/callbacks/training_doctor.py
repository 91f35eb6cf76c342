"""TrainingDoctor: watches a training, names what is wrong with it and says so once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_tricks import report
from lightning_tricks._compat.lightning import rank_zero_warn
from lightning_tricks.callbacks.monitoring.monitor import Monitor
from lightning_tricks.callbacks.monitoring.output import screen
from lightning_tricks.callbacks.monitoring.output.files import save_page
from lightning_tricks.diagnosis import Finding, Rule
from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.probe import MAX_PATTERNS
from lightning_tricks.report.folder import PAGE, TABLE
from lightning_tricks.report.live import LiveView
from lightning_tricks.watch.judge import Judge, OnProblem, TrainingProblemError, check_on_problem

_FIGURES = ("ladder", "histograms_over_time", "dead_and_linear", "gradient_flow")


__all__ = ["TrainingDoctor", "TrainingProblemError"]


class TrainingDoctor(Monitor):
    """Diagnoses a training while it runs: which layer is sick, why, and what to do about it.

    At every probed step the rules of :mod:`lightning_tricks.diagnosis` read the history. A problem counts once it has
    held over three probed steps (a NaN, equal weights and missing activations count at once). The progress bar tells
    how it stands, and in a notebook a line below the cell. The table is printed at the end of the training, also after
    an exception; the page ``diagnosis.html``, pictures and ``history.csv`` are written beside the logger's files, or
    without a logger under the Trainer's ``default_root_dir``, in ``lightning_logs/version_0/doctor`` and so on, and the
    folder is printed.

    Args:
        on_problem: What to do at a new problem of severity ``"warning"`` or ``"critical"``: ``"warn"`` once per problem
            and layer, ``"stop"`` the training after this batch, ``"raise"`` a TrainingProblemError, or only ``"log"``.
        report: Whether the table is printed and the files are written at the end.
        table: Whether the table is printed, and the line of a notebook shown; None: what ``report`` says.
        files: Whether ``diagnosis.html``, pictures and ``history.csv`` are written; None: what ``report`` says.
        ignore: Problems that are not to be found, such as ``("bias_shift", "dead_units:encoder.*")``.
        rules: Rules of your own, made by ``lightning_tricks.rule``, beside those of the package.
        preflight: Whether the network is asked, after the first step and with at most four further forwards on a copy,
            whether patterns of a batch mix and whether a sequence sees what it is to predict. The training goes on
            bit for bit as without. Not where several processes train together.
        every_n_steps: Probe optimiser steps 0, 1, 2, 4, 8, ... up to this number, then at every multiple of it; None
            for the Trainer's ``log_every_n_steps``.
        layers: A glob, or several, of the names to show, such as ``"encoder.*"``; judged are all layers.
        max_patterns: The most patterns (batch x space x time) per unit that are read; None for all.
        log_per_layer: Whether the highest severity of every layer goes to the loggers too, as
            ``doctor.severity/{layer}`` (0 to 2: nothing above info, warning, critical).

    Attributes:
        diagnosis: The diagnosis up to now; never None.
        history: The snapshots of the probed steps, the oldest first.

    Raises:
        ValueError: ``on_problem`` or a name in ``ignore`` is unknown, or there is a rule for a problem already.

    >>> doctor = TrainingDoctor(ignore=("bias_shift",))
    >>> doctor.diagnosis.state
    'unknown'
    """

    prefix = "doctor"

    def __init__(
        self,
        *,
        on_problem: OnProblem = "warn",
        report: bool = True,
        table: bool | None = None,
        files: bool | None = None,
        ignore: tuple[str, ...] | list[str] = (),
        rules: Sequence[Rule] = (),
        preflight: bool = True,
        every_n_steps: int | None = None,
        layers: str | list[str] = "*",
        max_patterns: int | None = MAX_PATTERNS,
        log_per_layer: bool = False,
    ) -> None:
        super().__init__(
            every_n_steps=every_n_steps, layers=layers, max_patterns=max_patterns, log_per_layer=log_per_layer
        )
        check_on_problem(on_problem)
        self._judge = Judge(ignore, rules, self.shown)
        self.globs = ("*",)
        self.on_problem = on_problem
        self.table = report if table is None else table
        self.files = report if files is None else files
        self.preflight = preflight
        self.ignore = self._judge.ignore
        self._rules_given = tuple(rule.problem for rule in self.rules)
        self._new: list[Finding] = []
        self._live = LiveView()

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Those of your own, without what has failed."""
        return self._judge.rules

    @property
    def diagnosis(self) -> Diagnosis:
        """What the rules say to the history up to now."""
        return self._judge.diagnosis(self.history)

    def on_snapshot(self, snapshot: Snapshot) -> None:
        super().on_snapshot(snapshot)
        self._judge.changed()
        self._new += self._judge.news(self.history)

    def on_validation_loss(self, loss: float) -> None:
        super().on_validation_loss(loss)
        self._judge.changed()

    def on_training_end(self) -> None:
        super().on_training_end()
        self._judge.changed()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        new, self._new = self._new, []
        for finding in new:
            if self.on_problem == "raise":
                raise TrainingProblemError(finding)
            if self.on_problem == "stop":
                trainer.should_stop = True
            if self.on_problem in ("warn", "stop"):
                rank_zero_warn(str(finding))

    def summary(self, snapshot: Snapshot) -> dict[str, float]:
        """Findings above info, the highest severity (0 to 2: none, warning, critical), 1 if healthy."""
        ranks = [finding.rank for finding in self.diagnosis.findings]
        return {
            "findings": float(sum(rank > 0 for rank in ranks)),
            "severity": float(max(ranks, default=0)),
            "healthy": float(self.diagnosis.healthy),
        }

    def per_layer(self, snapshot: Snapshot) -> dict[str, float]:
        names = (record.name for record in snapshot.matching(self.shown).records())
        severities = dict.fromkeys((f"severity/{name}" for name in names), 0.0)
        for finding in self.diagnosis.findings:
            key = f"severity/{finding.layer}"
            if key in severities:
                severities[key] = max(severities[key], float(finding.rank))
        return severities

    def to_csv(self, path: str | Path) -> Path:
        return self.diagnosis.to_csv(path)

    def show(self, trainer: Any, folder: Path | None) -> None:
        if self.table:
            self._live.update(self.diagnosis)
            screen.show(trainer, self.diagnosis)
        if folder is not None:
            figures = {name: getattr(report, name) for name in _FIGURES}
            save_page(self.diagnosis, folder / PAGE)
            self.to_csv(folder / TABLE)
            history = [snapshot.matching(self.shown) for snapshot in self.history]
            self.files_of_fit.save_pictures(trainer, figures, history, folder, self.shown)
            screen.show(trainer, f"Page, pictures and history: {folder}")

    def _log(self, trainer: Any) -> None:
        super()._log(trainer)
        screen.show_in_bar(trainer, self._name, self.diagnosis)
        if self.table and trainer.is_global_zero:
            self._live.update(self.diagnosis)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_fit_start(trainer, pl_module)
        self._live = LiveView()  # a line for each fit

    def make_state_key(self) -> str:
        own = (self._rules_given,) if self._rules_given else ()
        return f"{super().make_state_key()}{(self.on_problem, self.ignore, *own)}"

    def own_state(self) -> dict[str, Any]:
        return {**super().own_state(), **self._judge.own_state()}

    def restore(self, history: list[Snapshot], state: Mapping[str, Any]) -> None:
        super().restore(history, state)
        self._judge.restore(state)
