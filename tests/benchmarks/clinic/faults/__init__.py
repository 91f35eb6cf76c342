"""All kinds of faults by name."""

from __future__ import annotations

from ..case import Case
from ..setup import Setup, healthy
from .axis_faults import AXIS_FAULTS
from .code_faults import CODE_FAULTS
from .data_faults import DATA_FAULTS
from .kind import Kind
from .layer_faults import LAYER_FAULTS
from .regularization_faults import REGULARIZATION_FAULTS
from .step_faults import STEP_FAULTS
from .training_faults import TRAINING_FAULTS

KINDS: dict[str, Kind] = {
    **LAYER_FAULTS,
    **TRAINING_FAULTS,
    **CODE_FAULTS,
    **REGULARIZATION_FAULTS,
    **AXIS_FAULTS,
    **DATA_FAULTS,
    **STEP_FAULTS,
}


def planted(case: Case) -> Setup:
    """The setup of a case with its faults."""
    setup = healthy(case)
    for fault in case.faults:
        KINDS[fault.kind].plant(setup, fault.place, fault.strength)  # type: ignore[arg-type]
    return setup
