"""The registry of activation functions: which torch function is one, its derivative, its range, where it is flat.

Whatever has to know an activation by its function or its name asks here: the probe (which sees functions being
called), the theory of moments (what a unit does to a distribution), the initialisers (the gain follows from the
function: ``lt.init.gain(name)``), surgery and the rules. An activation is one entry in ``entries.py``, or one call of
:func:`register`.
"""

from lightning_tricks.activations.activation import Activation, BoundActivation, Properties
from lightning_tricks.activations.registry import (
    activation_of,
    by_function,
    by_name,
    entries,
    properties_of,
    register,
)

__all__ = [
    "Activation",
    "BoundActivation",
    "Properties",
    "activation_of",
    "by_function",
    "by_name",
    "entries",
    "properties_of",
    "register",
]
