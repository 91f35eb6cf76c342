"""All runs: the sick ones, their healthy twins and the other healthy ones."""

from __future__ import annotations

from ..case import Case, Fault
from .healthy import healthy_cases
from .sick import LAYERS
from .sick_training import CODE, TRAINING
from .sick_whole import WHOLE


def sick_cases() -> list[Case]:
    """One fault each."""
    return list(dict.fromkeys(case for row in (*LAYERS, *TRAINING, *CODE, *WHOLE) for case in row.cases()))


def double_cases() -> list[Case]:
    """Two faults each: not in the rates, but someone has to be able to read what is said about them."""
    pairs = (
        (("negative biases", 1, -20.0), ("learning rate high", None, 30.0)),
        (("input scaled", None, 255.0), ("softmax before cross entropy", None, 1.0)),
        (("detach", 0, 1.0), ("constant weights", 2, 0.1)),
        (("few noisy patterns", None, 60.0), ("never used", None, 1.0)),
        (("layer scaled", 1, 1e-3), ("not in optimizer", 0, 1.0)),
    )
    bases = (
        ("mlp3", "relu", "adam"),
        ("functional3", "relu", "sgd"),
        ("sequential4", "relu", "adam"),
        ("mlp6", "relu", "sgd"),
    )
    return [
        Case(name, activation, optimizer=optimizer, faults=tuple(Fault(*fault) for fault in pair))
        for pair in pairs
        for name, activation, optimizer in bases
    ]


def all_cases() -> list[Case]:
    """Everything that has to be trained, each once: runs that belong together one after the other."""
    sick = [*sick_cases(), *double_cases()]
    return list(dict.fromkeys([*(case.twin for case in sick), *healthy_cases(), *sick]))


def whole_cases() -> list[Case]:
    """Faults of the whole training alone, and their twins."""
    sick = [case for row in WHOLE for case in row.cases()]
    return list(dict.fromkeys(each for case in sick for each in (case.twin, case)))


def healthy_list() -> list[Case]:
    """Every run without a fault, twins included."""
    return [case for case in all_cases() if not case.sick]
