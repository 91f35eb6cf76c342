"""Which activation a forward calls last as a function, and a step in which it is left out."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_tricks.activations import by_function
from lightning_tricks.experiments.asking.outputs import SOFTMAXES

_WEIGHTED = ("linear", "bilinear", "matmul", "mm", "bmm", "baddbmm", "addmm", "einsum", "embedding")
_OURS = ("torch", "lightning_tricks", "lightning", "pytorch_lightning", "contextlib")


@dataclass(frozen=True)
class Called:
    """A function that was called on the way from the last weights to the output.

    Args:
        name: The function's.
        index: Which of all calls of activations in a step it is.
        line: Where, as ``"model.py:12"``.
    """

    name: str
    index: int
    line: str


class _Activations(TorchFunctionMode):
    """Counts calls of activations, wherever they are made while ``is_inside`` holds."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.is_inside = 0, True

    def is_activation(self, func: Any, args: Any) -> bool:
        name = name_of(func)
        known = by_function.get(func)
        wanted = name in SOFTMAXES or (known is not None and known.elementwise)
        return bool(self.is_inside and wanted and args and isinstance(args[0], Tensor))


class LastFunction(_Activations):
    """Notes the activation behind the last weights; the reader of a step says when a module runs."""

    def __init__(self) -> None:
        super().__init__()
        self.is_inside = False
        self.last: Called | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = name_of(func)
        if self.is_activation(func, args):
            self.last = Called(name, self.count, _line())
            self.count += 1
        elif self.is_inside and (name in _WEIGHTED or name.startswith("conv")):
            self.last = None
        return func(*args, **(kwargs or {}))


class LeftOut(_Activations):
    """A block in which one call of an activation gives back what it was given."""

    def __init__(self, called: Called) -> None:
        super().__init__()
        self._called = called

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.is_activation(func, args):
            self.count += 1
            if self.count - 1 == self._called.index and name_of(func) == self._called.name:
                return args[0]
        return func(*args, **(kwargs or {}))


def name_of(func: Any) -> str:
    """``"softmax"`` of ``torch.softmax``, ``F.softmax`` and ``Tensor.softmax``; ``"matmul"`` of ``@``."""
    name = getattr(func, "__name__", "")
    return "matmul" if name in ("__matmul__", "__rmatmul__") else name.strip("_")


def _line() -> str:
    """Where the user's code is on the way to here."""
    frame = inspect.currentframe()
    while frame is not None:
        room = frame.f_globals.get("__name__", "").partition(".")[0]
        if room not in _OURS:
            return f"{frame.f_code.co_filename.replace(chr(92), '/').rpartition('/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
