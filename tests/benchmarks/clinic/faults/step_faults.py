"""Steps that do not happen, or use what was left of the steps before; outputs that are the same for every input."""

from __future__ import annotations

import copy

from torch import nn

from ..setup import Setup
from .code_faults import on_output
from .kind import Kind
from .layer_faults import Scale


def rate_of_zero(setup: Setup, place: int, strength: float) -> None:
    """A schedule that divides whole numbers."""
    setup.factor = lambda step: float(step // 100_000)


def forget_step(setup: Setup, place: int, strength: float) -> None:
    setup.steps = False


def loss_of_a_number(setup: Setup, place: int, strength: float) -> None:
    """A loss made anew from its number, so that backward works."""
    setup.numbered = True


def optimizer_of_a_copy(setup: Setup, place: int, strength: float) -> None:
    setup.optimized = copy.deepcopy(setup.network)


def forget_to_clear(setup: Setup, place: int, strength: float) -> None:
    setup.clears = False


def drop_everything(setup: Setup, place: int, strength: float) -> None:
    setup.network.put(setup.network.places[-1].plug, nn.Dropout(1.0))


def times_nothing(setup: Setup, place: int, strength: float) -> None:
    """A factor that is zero and not learned."""
    setup.network.put(setup.network.places[-1].plug, Scale(0.0))


STEP_FAULTS: dict[str, Kind] = {
    "rate of zero": Kind(rate_of_zero, "no_update", "training", in_code=True),
    "step forgotten": Kind(forget_step, "no_update", "training", in_code=True),
    # No gradient reaches anything, and the optimiser holds nothing of the model: the other name is as right.
    "loss of a number": Kind(
        loss_of_a_number, "no_update", "training", in_code=True, also=("disconnected_parameters",)
    ),
    "optimizer of a copy": Kind(
        optimizer_of_a_copy, "no_update", "training", in_code=True, also=("disconnected_parameters",)
    ),
    "gradients not cleared": Kind(forget_to_clear, "stale_gradient", "training", in_code=True),
    "everything dropped": Kind(drop_everything, "collapsed_output", "output", in_code=True),
    "times nothing": Kind(times_nothing, "collapsed_output", "output", in_code=True),
    # One output under a softmax is always 1; it does not fit its loss either.
    "softmax of one output": Kind(
        on_output(nn.Softmax(1)), "collapsed_output", "output", in_code=True, also=("output_mismatch",)
    ),
}
