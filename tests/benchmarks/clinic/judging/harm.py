"""Whether a run counts: a healthy one has to learn, a sick one has to suffer from its fault."""

from __future__ import annotations

import math

from ..data import ALLOWED
from ..faults import KINDS
from ..train import Run

ENOUGH = 0.8  # of what the data allow: below, a run is not healthy
GAN_ALLOWED = 0.9  # share of made points among the data, and of data among the made
LOST = 0.03  # accuracy, or R^2, below the twin's
RAISED = 1.5  # training loss over the twin's, and validation loss over its minimum
FLOOR = 0.02  # a loss of .002 beside one of .001 harms nobody


def is_fit(run: Run) -> bool:
    """Whether a run without a fault is a healthy one: it learned, and did not overfit."""
    if run.error:
        return False
    if run.case.architecture == "gan":  # two players swing: the mean of the last six looks
        last = [accuracy for _, _, accuracy in run.validation[-6:]]
        return sum(last) / len(last) >= ENOUGH * GAN_ALLOWED
    return run.accuracy >= ENOUGH * ALLOWED[run.case.data] and not overfits(run)


def overfits(run: Run) -> bool:
    """Validation loss well above its minimum while the training loss fell on."""
    losses = [(step, loss) for step, loss, _ in run.validation]
    step, lowest = min(losses, key=lambda pair: pair[1])
    risen = losses[-1][1] >= RAISED * lowest and losses[-1][1] - lowest >= FLOOR
    before = run.losses[max(step - 20, 0) : step]
    return risen and bool(before) and run.final_loss < sum(before) / len(before)


def is_harmed(run: Run, twin: Run) -> bool:
    """Whether the fault did harm: always for mistakes in the code, else measured against the twin."""
    kinds = [KINDS[fault.kind] for fault in run.case.faults]
    if run.error or any(kind.in_code for kind in kinds):
        return True
    if any(kind.problem == "overfitting" for kind in kinds):
        return overfits(run)
    needed = max(kind.lost for kind in kinds)
    if needed:
        return not run.accuracy > twin.accuracy - needed
    if not math.isfinite(run.final_loss) or not run.accuracy > twin.accuracy - LOST:
        return True
    return run.final_loss >= RAISED * twin.final_loss and run.final_loss - twin.final_loss >= FLOOR
