"""The least loss over outputs that may be anything, or one constant: by LBFGS, whatever the loss."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_tricks.activations import properties_of
from lightning_tricks.experiments.outputs import Output
from lightning_tricks.experiments.patterns import Collation, NotAskedError

_ITERATIONS = 60  # of LBFGS, for each start
_SCALES = (1.0, 1e2, 1e4, 1e6)  # of random starts: targets may be years or prices
_LONGER = tuple(10.0**k for k in range(7))  # straight outwards from the best
_FAR = 1e9  # from where on it is not gone outwards any further: float32 ends at 1e38
_DECADES, _FALLS = 3, 0.01  # a loss with a bound stands still over so many, relative to 1 and the loss
_SEED = 0
Values = list[Tensor]
Loss = Callable[[Values], Tensor]
Link = Callable[[Tensor], Tensor]


class Search:
    """The least loss over outputs that may be anything, or one constant.

    Args:
        outputs: What is replaced.
        collation: How the batch was put together.
        given: The tensors of the batch, among them the targets.
        loss: Of the values of the outputs.
    """

    def __init__(self, outputs: Sequence[Output], collation: Collation, given: list[Tensor], loss: Loss) -> None:
        self.outputs, self.loss = outputs, loss
        self.activation = next((output.activation for output in outputs if output.activation), "")
        self._collation, self._given = collation, given
        self._axes = [constant_axes(output.value, collation, given) for output in outputs]
        self._targets = [_fitting(output.value, given) for output in outputs]

    def constant(self) -> float:
        """Of one constant for all patterns."""
        means = [[t.mean(axes, keepdim=True), _median(t, axes)] for t, axes in zip(*self._known(), strict=True)]
        starts = [[each[i] for each in means] for i in range(2 if means else 0)]
        return self._best(starts, constant=True)

    def free(self) -> float:
        """Of a free tensor for every output."""
        targets = self._known()[0]
        return self._best([targets] if targets else [], constant=False)

    def through_activation(self) -> float:
        """Of a free tensor in front of the activation behind the last layer."""
        if not self.activation:
            return math.nan
        found = math.nan
        with contextlib.suppress(_RefusedError, BoundlessError):
            # Where a rectifier is off no gradient comes back: it is begun where it is on, too.
            found = self._minimum([[torch.ones_like(output.raw) for output in self.outputs]], None, constant=False)
        targets, (low, high) = self._known()[0], properties_of(self.activation).range
        if targets and math.isfinite(max(low, -high)):
            with contextlib.suppress(NotAskedError), torch.no_grad():
                found = min(found, float(self.loss([target.clamp(low, high) for target in targets])))
        return found

    def _known(self) -> tuple[list[Tensor], list[tuple[int, ...]]]:
        """Targets of the outputs' shapes, where all have one."""
        found = [target for target in self._targets if target is not None]
        return (found, self._axes) if len(found) == len(self.outputs) else ([], [])

    def _best(self, starts: list[Values], *, constant: bool) -> float:
        """With raw values; through the model's own activation or a link where raw ones have no finite lowest loss."""
        links: list[Link | None] = [lambda x: x, *([None] if self.activation else []), *_LINKS]
        for k, link in enumerate(links):
            try:
                return self._minimum([] if k else starts, link, constant=constant)
            except BoundlessError:
                if k or not self.activation:
                    raise
            except _RefusedError:
                continue
        raise NotAskedError("no outputs were found that give this loss a finite value")

    def _minimum(self, starts: list[Values], link: Link | None, *, constant: bool) -> float:
        """The least loss of values behind a link; None: behind the model's own activation.

        Raises:
            _RefusedError: The loss does not take such values at all.
            BoundlessError: It has no lower bound.
        """
        whole = [output.raw if link is None else output.value for output in self.outputs]
        like = list(whole)
        if constant:
            axes = [constant_axes(x, self._collation, self._given) for x in whole]
            like = [_shrunk(x, along) for x, along in zip(whole, axes, strict=True)]

        def loss(values: Values) -> Tensor:
            values = [value.expand(x.shape) for value, x in zip(values, whole, strict=True)]
            pairs = zip(self.outputs, values, strict=True)
            return self.loss([output.rebuild(value) if link is None else link(value) for output, value in pairs])

        return _Minimum(loss, like).run(starts)


class _RefusedError(Exception):
    """A loss that has no finite value on outputs of this range."""


class BoundlessError(Exception):
    """A loss that has no lower bound on outputs of this range."""


class _Minimum:
    """LBFGS from several starts, and from the best of them straight outwards."""

    def __init__(self, loss: Loss, like: Values) -> None:
        self._loss, self._like = loss, like
        self.best, self._at = math.inf, [torch.zeros_like(each) for each in like]

    def run(self, starts: list[Values]) -> float:
        generator = torch.Generator().manual_seed(_SEED)
        zeros = [torch.zeros_like(each) for each in self._like]
        drawn = [[torch.randn(x.shape, generator=generator).to(x) * scale for x in self._like] for scale in _SCALES]
        values = [(self._value(start), start) for start in (*starts, zeros, *drawn)]
        known = [(value, start) for value, start in values if math.isfinite(value)]
        if not known:
            raise _RefusedError
        begin = {id(start): start for start in (min(known, key=lambda pair: pair[0])[1], *starts, drawn[0])}
        for start in begin.values():
            with contextlib.suppress(NotAskedError, RuntimeError, IndexError):  # a value that the loss does not take
                self._descend(start)
        self._outwards()
        return self.best

    def _value(self, values: Values) -> float:
        try:
            with torch.no_grad():
                value = float(self._loss(values))
        except NotAskedError:  # the loss raised an error on them
            return math.inf
        if math.isfinite(value) and value < self.best:
            self.best, self._at = value, [each.detach().clone() for each in values]
        return value if math.isfinite(value) else math.inf

    def _descend(self, start: Values) -> None:
        free = [each.detach().clone().requires_grad_() for each in start]
        optimizer = torch.optim.LBFGS(free, max_iter=_ITERATIONS, line_search_fn="strong_wolfe", tolerance_change=1e-12)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self._loss(free)
            if loss.requires_grad:
                loss.backward()
            value = float(loss.detach())
            if math.isfinite(value) and value < self.best:
                self.best, self._at = value, [each.detach().clone() for each in free]
            return loss.detach()

        optimizer.step(closure)

    def _outwards(self) -> None:
        """Logits are best infinitely far out; a loss that goes on falling there has no lower bound."""
        size = max((float(each.abs().max()) for each in self._at if each.numel()), default=0.0)
        if not 0 < size < math.inf:
            return
        unit = [each / size for each in self._at]
        values = [self._value([each * (min(size, _FAR) * factor) for each in unit]) for factor in _LONGER]
        known = [value for value in values if math.isfinite(value)]
        if len(known) > _DECADES and known[-1] < known[-1 - _DECADES] - _FALLS * (1 + abs(known[0])):
            raise BoundlessError


def constant_axes(output: Tensor, collation: Collation, given: Sequence[Tensor]) -> tuple[int, ...]:
    """Axes along which a guess is constant: all but that of classes, or of patterns where targets are as many numbers.

    >>> ids = torch.zeros(8, 5, dtype=torch.long)
    >>> constant_axes(torch.zeros(8, 5, 20), Collation.of(ids), [ids])
    (0, 1)
    >>> x = torch.zeros(8, 3, 4, 4)
    >>> constant_axes(x, Collation.of(x), [x])
    (0,)
    """
    numbers = [tensor for tensor in given if not tensor.is_floating_point()]
    for axis in range(1, output.dim()):
        rest = [length for k, length in enumerate(output.shape) if k != axis]
        if any(list(tensor.shape) == rest for tensor in numbers):
            return tuple(k for k in range(output.dim()) if k != axis)
    along = [axis for axis, length in enumerate(output.shape) if length == collation.size]
    return tuple(along[:1]) if along else (0,) if output.dim() else ()


def _fitting(output: Tensor, given: Sequence[Tensor]) -> Tensor | None:
    """The last tensor of a batch that is as many numbers: the targets of a regression."""
    found = [t for t in given[1:] if t.numel() == output.numel() and t.dtype != torch.bool and not t.is_complex()]
    return found[-1].to(output).reshape(output.shape) if found else None


def _shrunk(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.new_zeros([1 if axis in axes else length for axis, length in enumerate(x.shape)])


def _median(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    for axis in axes:
        x = x.median(axis, keepdim=True).values
    return x


def _units(x: Tensor) -> int:
    return 1 if x.dim() > 1 else 0


_LINKS: tuple[Link, ...] = (torch.sigmoid, lambda x: x.softmax(_units(x)), lambda x: x.log_softmax(_units(x)))
