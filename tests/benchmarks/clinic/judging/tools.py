"""Three other tools beside ours on the faults of the whole training: as installed, with their defaults.

python -m tests.benchmarks.clinic.judging.tools [--every n]     in an environment that has them

torchtest2 0.1 checks a network, its loss and its optimiser on one batch before the training; torch-audit 0.3 and
torchmortem 0.1.1 watch the training, through patched methods and hooks. An alarm is what they call a warning or worse;
torch-audit's hints for the hardware (TA2xx) and for style (TA400, TA404) are none. A name of theirs counts as the
problem's where it leads a reader to it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as L

from ..case import Case
from ..cases import whole_cases
from ..faults import KINDS, planted
from ..train import Training, fit, loaders_of
from .counts import Share
from .table import lines

Tool = Callable[[Case], set[str]]
# What their names mean in ours.
OURS: dict[str, tuple[str, ...]] = {
    "batch_independence": ("batch_mixing",),
    "output_varies": ("collapsed_output",),
    "input_dependency": ("collapsed_output",),
    "optimizer_coverage": ("no_update",),
    "params_change": ("no_update",),
    "gradient_flow": ("no_update",),
    "loss": ("target_mismatch",),
    "overfit_batch": ("not_learning",),
    "TA104 No Gradients Found": ("no_update",),
    "TA302 Flat/Empty Data": ("collapsed_output",),
    "TA401 AdamW vs Adam": ("over_regularization",),
    "TA402 Weight Decay on Norm/Bias": ("over_regularization",),
    "rank_collapse": ("collapsed_output",),
    "update_ratio low": ("no_update", "over_regularization"),
    "weight_norm Stagnant weight norms": ("no_update",),
    "loss_dynamics Loss plateau detected": ("not_learning",),
}
NO_ALARM = ("TA200", "TA201", "TA202", "TA203", "TA400", "TA404")


class Watched(L.Callback):
    """Hands model, optimiser and losses to a tool."""

    def __init__(self, begin: Callable[[Any, Any], Any], step: Callable[[Any, float], None]) -> None:
        self.begin, self.step, self.tool = begin, step, None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.tool = self.begin(pl_module.net, trainer.optimizers[0])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.step(self.tool, float(pl_module.losses[-1]))


def _watch(case: Case, callback: Watched) -> Any:
    setup = planted(case)
    error = fit(Training(setup), loaders_of(setup), case, callback)
    return None if error or callback.tool is None else callback.tool


def torchtest2(case: Case) -> set[str]:
    from torchtest2 import check_model

    setup = planted(case)
    module = Training(setup)
    found = module.configure_optimizers()
    optimizer = found["optimizer"] if isinstance(found, dict) else found
    x, y = next(iter(loaders_of(setup)[0]))
    report = check_model(setup.network, x, y, loss_fn=setup.loss, optimizer=optimizer)
    return {result.name for result in (*report.failures, *report.warnings)}


def torch_audit(case: Case) -> set[str]:
    from torch_audit import autopatch

    begin = lambda net, optimizer: autopatch(net, optimizer=optimizer, every_n_steps=50, reporters=[])  # noqa: E731
    auditor = _watch(case, Watched(begin, lambda auditor, loss: None))
    if auditor is None:
        return set()
    result = auditor.finish()
    auditor.unpatch()
    named = {each.rule_id for each in result.findings if each.severity.value != "INFO"}
    return {f"{name} {result.rules[name].title}" for name in named if name not in NO_ALARM}


def torchmortem(case: Case) -> set[str]:
    from torchmortem import Autopsy

    def begin(net: Any, optimizer: Any) -> Any:
        autopsy = Autopsy(net, optimizer=optimizer)
        autopsy.attach()
        return autopsy

    autopsy = _watch(case, Watched(begin, lambda autopsy, loss: autopsy.step(loss=loss)))
    if autopsy is None:
        return set()
    autopsy.detach()
    report = autopsy.get_report()
    return {_name(finding) for finding in report.findings if finding.severity.value > 0}


def _name(finding: Any) -> str:
    if finding.category in ("loss_dynamics", "weight_norm"):
        return f"{finding.category} {finding.title}"
    if finding.category == "update_ratio":
        return f"update_ratio {'low' if 'too low' in finding.title else 'high'}"
    return str(finding.category)


TOOLS: dict[str, Tool] = {"torchtest2": torchtest2, "torch-audit": torch_audit, "torchmortem": torchmortem}


def sample(every: int) -> list[Case]:
    """One sick run of each kind, the first of its row in half A or B in turn; every n-th kind."""
    by_kind: dict[str, list[Case]] = {}
    for case in whole_cases():
        if case.sick:
            by_kind.setdefault(case.faults[0].kind, []).append(case)
    found = []
    for k, cases in enumerate(by_kind.values()):
        half = [case for case in cases if case.half == "AB"[k % 2]] or cases
        found.append(half[0])
    return found[::every]


def asked(tool: Tool, case: Case) -> set[str]:
    """What a tool raises; ``error`` where it fails."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            return tool(case)
        except Exception as error:
            return {f"error: {type(error).__name__}"}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every n-th kind of fault")
    cases = sample(parser.parse_args(arguments).every)
    rows, details = [], []
    said = {name: [(asked(tool, case), asked(tool, case.twin)) for case in cases] for name, tool in TOOLS.items()}
    for name, pairs in said.items():
        named = 0
        for case, (sick, twin) in zip(cases, pairs, strict=True):
            problem = KINDS[case.faults[0].kind].problem
            right = any(problem in OURS.get(each, ()) for each in sick)
            named += right
            details.append([name, problem, case.faults[0].kind, ", ".join(sorted(sick)), ", ".join(sorted(twin))])
        only = sum(bool(sick - twin) for sick, twin in pairs)
        alarms = sum(bool(twin) for _, twin in pairs)
        raised = sum(bool(sick) for sick, _ in pairs)
        rows.append([name, *(str(Share(hits, len(cases))) for hits in (raised, alarms, only, named))])
    print("\n".join(lines(["", "sick: alarm", "twin: alarm", "alarm that the twin has not", "problem named"], rows)))
    print()
    print("\n".join(lines(["tool", "problem", "fault", "sick", "twin"], details)))


if __name__ == "__main__":
    main()
