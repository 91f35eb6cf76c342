"""The ways to find an activation: by its name, by a function of torch, by a module."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from lightning_tricks._compat import torch_functions
from lightning_tricks.activations.activation import Activation, BoundActivation, Properties
from lightning_tricks.activations.entries import ENTRIES

_BY_NAME: dict[str, Activation] = {entry.name: entry for entry in ENTRIES}
_NOTHING_KNOWN = Properties()


def register(entry: Activation) -> Activation:
    """Adds an activation of your own: rules know its properties, ``swap_activation`` its module, ``gain`` its moments.

    Probes see the calls of torch's own functions, such as ``torch.erf``, under all names that torch has; one that
    is composed of others in Python shows as those.

    Raises:
        ValueError: The name is taken.
    """
    if entry.name in _BY_NAME:
        raise ValueError(f"there is an activation {entry.name!r} already")
    _BY_NAME[entry.name] = entry
    return entry


def entries() -> tuple[Activation, ...]:
    """All activations that are known."""
    return tuple(_BY_NAME.values())


def by_name(name: str) -> Activation:
    """The entry of a registry name.

    Raises:
        ValueError: The name is unknown; the message lists the known ones.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        near = difflib.get_close_matches(str(name), _BY_NAME, 1, 0.75)
        meant = f": did you mean {near[0]!r}?" if near else ";"
        raise ValueError(f"unknown activation {name!r}{meant} known are {', '.join(sorted(_BY_NAME))}") from None


def properties_of(name: str | None) -> Properties:
    """The entry of a name in a record; for a user's own activation that is not registered, properties of nothing.

    >>> properties_of("tanh").two_sided, properties_of("mine").two_sided
    (True, False)
    """
    return _NOTHING_KNOWN if name is None else _BY_NAME.get(name, _NOTHING_KNOWN)


class _ByFunction(Mapping[Callable[..., Any], Activation]):
    """The entry of every callable that torch offers for an activation now, whoever has wrapped what until then."""

    def __init__(self) -> None:
        self._known: dict[Callable[..., Any], Activation] = {}
        self._state: tuple[Any, ...] = ()

    def __getitem__(self, function: Callable[..., Any]) -> Activation:
        return self._current()[function]

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter(self._current())

    def __len__(self) -> int:
        return len(self._current())

    def _current(self) -> dict[Callable[..., Any], Activation]:
        state = (*entries(), *torch_functions.state())
        if state != self._state:
            self._known = {function: entry for entry in entries() for function in entry.functions()}
            self._state = state
        return self._known


by_function: Mapping[Callable[..., Any], Activation] = _ByFunction()


def activation_of(module: nn.Module) -> BoundActivation | None:
    """The activation that a module computes, with the module's own parameters, or None for any other module.

    >>> activation_of(nn.ELU(alpha=0.5)).parameters
    (('alpha', 0.5),)
    >>> activation_of(nn.Linear(2, 2)) is None
    True
    """
    by_module = {entry.module: entry for entry in entries() if entry.module is not None}
    entry = next((by_module[cls] for cls in type(module).__mro__ if cls in by_module), None)
    if entry is None:
        return None
    return entry.bind(**{key: getattr(module, key) for key in entry.parameters if hasattr(module, key)})
