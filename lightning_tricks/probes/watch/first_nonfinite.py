"""Which call of a step makes the first NaN or Inf, and on which line: the step is run again, each call looked at."""

from __future__ import annotations

import dataclasses
import inspect
import linecache
import math
import pathlib
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_OWN = {"torch", __name__.partition(".")[0]}  # packages whose lines are nobody's fault
_MOST_NODES = 20_000


@dataclasses.dataclass(frozen=True)
class TorchCall:
    """A call of a torch function; ``line`` is the user's: ``"model.py:12: x.log()"``."""

    operation: str
    line: str


def first_nonfinite(run: Callable[[], Tensor], parameters: Iterable[Tensor] = ()) -> TorchCall | None:
    """The call that makes a loss, or else a gradient of the parameters, NaN or Inf; None where there is none.

    Forward it is the first call with finite inputs and an output that is not, among those that lead to the loss: an
    Inf that was written as one (a mask) is none. Going backward it is the first whose gradient comes in finite.

    Args:
        run: Computes the loss; it leaves what traces it leaves.
        parameters: Whose gradients are looked at; they are not accumulated.

    >>> weight = torch.zeros(3, requires_grad=True)
    >>> first_nonfinite(lambda: (weight.exp() - 1).log().sum()).operation
    'log'
    >>> first_nonfinite(lambda: weight.sqrt().sum(), [weight]).operation
    'sqrt (backward)'
    """
    with torch.enable_grad(), _Origins() as origins:
        loss = run()
    if not _finite(loss):
        return origins.made.get(id(loss))
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    return _going_backward(loss, wanted, origins.nodes) if wanted and loss.requires_grad else None


class _Origins(TorchFunctionMode):
    """Notes for every tensor that is not finite which call made it so, and for every node which call made it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, TorchCall | None] = {}  # None: it came in so, or was written as such
        self.nodes: dict[Any, TorchCall] = {}
        self._alive: list[Tensor] = []  # so that no identity is given to another tensor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [each for each in _leaves((args, kwargs or {})) if not _finite(each)]
        output = func(*args, **(kwargs or {}))
        place = TorchCall(getattr(func, "__name__", str(func)).strip("_"), _line())
        for tensor in _leaves(output):
            if isinstance(tensor, Tensor):
                if not _finite(tensor):
                    self.made[id(tensor)] = self._origin(inputs, place, tensor)
                    self._alive.append(tensor)
                self._note(tensor.grad_fn, place)
        return output

    def _origin(self, inputs: list[Any], place: TorchCall, output: Tensor) -> TorchCall | None:
        origins = [self.made.get(id(each)) for each in inputs]
        known = next((origin for origin in origins if origin is not None), None)
        spoilt = any(bool(torch.as_tensor(each).isnan().any()) for each in inputs)
        made_here = not inputs or (not spoilt and bool(output.isnan().any()))  # such as a row that is masked all over
        return known or (place if made_here else None)

    def _note(self, node: Any, place: TorchCall) -> None:
        """A function of Python makes more nodes than the last."""
        waiting = [node]
        while waiting and len(self.nodes) < _MOST_NODES:
            node = waiting.pop()
            if node is not None and node not in self.nodes:
                self.nodes[node] = place
                waiting += [before for before, _ in node.next_functions]


def _going_backward(loss: Tensor, wanted: list[Tensor], nodes: dict[Any, TorchCall]) -> TorchCall | None:
    found: list[TorchCall] = []

    def look(place: TorchCall) -> Callable[[Any, Any], None]:
        def hook(to_inputs: Any, to_outputs: Any) -> None:
            if not found and all(map(_finite, _leaves(to_outputs))) and not all(map(_finite, _leaves(to_inputs))):
                found.append(place)

        return hook

    for node, place in nodes.items():
        node.register_hook(look(place))
    torch.autograd.grad(loss, wanted, allow_unused=True)
    return dataclasses.replace(found[0], operation=f"{found[0].operation} (backward)") if found else None


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (tuple, list)):
        yield tree
        return
    for branch in tree:
        yield from _leaves(branch)


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, Tensor) or bool(value.detach().isfinite().all())


def _line() -> str:
    """The innermost line that is neither torch's nor of this package."""
    for frame, number in traceback.walk_stack(inspect.currentframe()):
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _OWN:
            file = frame.f_code.co_filename
            return f"{pathlib.Path(file).name}:{number}: {linecache.getline(file, number).strip()}"
    return ""
