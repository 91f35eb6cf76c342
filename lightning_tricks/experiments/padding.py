"""padding: does what stands behind the end of a sequence change what the network says of it?"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Trait
from lightning_tricks.diagnosis.rule import thresholds
from lightning_tricks.diagnosis.rules.batch_mixing import LIMITS as OF_BATCHES
from lightning_tricks.experiments.asking.asks import Answer, LossFunction, asks, copied
from lightning_tricks.experiments.asking.registry import Subject, tried
from lightning_tricks.experiments.independence import outermost_call
from lightning_tricks.experiments.preflight.dependence import UNEQUAL
from lightning_tricks.experiments.preflight.patterns import Collation, NotAskedError, mapped
from lightning_tricks.experiments.preflight.replay import replayable
from lightning_tricks.experiments.training import Training
from lightning_tricks.model.batches import tensors_in

QUESTION = "Does padding change what the network says of a sequence?"
_PADDED = 0.25  # of the sequences, at the least: else what they end with is a symbol
_SHORTEST = 8  # one over it: of the length, what is left of it when padding is cut off
_ATTENTION = ("scaled_dot_product_attention", "multi_head_attention_forward", "softmax")


@asks(QUESTION)
def padding(model: nn.Module | Training, batch: Any, loss_fn: LossFunction | None = None) -> Answer:
    """What the network says of the shorter sequences of a batch with their padding, and with most of it cut off.

    Padding is a token, or zeros, with which sequences end and that stands nowhere else. Masks are cut alike.

    Args:
        model: A LightningModule, whose ``training_step`` gives the loss, or any module with a ``loss_fn``.
        batch: One batch.
        loss_fn: ``loss_fn(model(x), y)``; needed unless the model is a LightningModule.

    Returns:
        Numbers: ``change`` of the outputs over their standard deviation, at positions of the sequence itself or of it
        as a whole; ``cut``: how many positions were cut off, of ``positions``; ``attention`` and ``recurrence``:
        whether such layers read all positions; ``told``: whether the batch holds a mask or the lengths.

        How to read it: 0, or 1e-7 by rounding: padding is masked. A convolution or a mean over sequences of one
        length may read it; where batches are padded to their longest, or masks are there, the answer should not hang
        on it.

    >>> net = nn.Sequential(nn.Embedding(9, 4, padding_idx=0), nn.Flatten(), nn.Linear(24, 2))
    >>> ids = torch.tensor([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 0]] * 4)
    >>> padding(net, (ids, torch.arange(8) % 2), nn.functional.cross_entropy).answer.partition(":")[0]
    'it reads sequences of one length only'
    """
    return _asked_of(copied(model, loss_fn), batch)


@dataclasses.dataclass(frozen=True)
class _Sequences:
    """Sequences with padding at their ends: which argument, the axes, and where each one ends."""

    ids: Tensor
    time: int
    lengths: Tensor

    @classmethod
    def of(cls, tensors: Sequence[Tensor], collation: Collation) -> _Sequences:
        for x in tensors:
            if x.dim() in (2, 3) and x.is_floating_point() == (x.dim() == 3) and x.dtype != torch.bool:
                ends = {time: _lengths(x if time else x.transpose(0, 1)) for time in (1, 0)}
                found = [(time, lengths) for time, lengths in ends.items() if lengths is not None]
                if len(found) > 1:  # they lie sorted by their lengths
                    found = [each for each in found if 1 - each[0] == collation.axis(x)]
                if found:
                    return cls(x, *found[0])
        raise NotAskedError("no sequences with padding at their ends are among the arguments")

    @property
    def positions(self) -> int:
        return self.ids.shape[self.time]

    @property
    def left(self) -> int:
        """How many positions are left when most padding is cut off the shorter half of the padded."""
        padded = self.lengths[self.lengths < self.positions]
        return max(int(padded.median()), self.positions // _SHORTEST, 1)

    @property
    def chosen(self) -> Tensor:
        return (self.lengths <= self.left).nonzero().flatten()

    def shorter(self, x: Tensor, length: int) -> Tensor:
        """An argument of the chosen sequences, of so many positions."""
        count, patterns = self.positions, self.ids.shape[1 - self.time]
        if x.dim() >= 2 and (x.shape[1 - self.time], x.shape[self.time]) == (patterns, count):
            x = x.index_select(1 - self.time, self.chosen.to(x.device)).narrow(self.time, 0, length)
            square = x.dim() == 3 and x.shape[2] == count and x.shape != self.ids.shape
            return x.narrow(2, 0, length) if square else x
        if x.dim() >= 1 and x.shape[0] == patterns:
            x = x.index_select(0, self.chosen.to(x.device))
        elif x.dim() > 2:
            raise NotAskedError(f"it is not known what an argument of {list(x.shape)} has to do with the sequences")
        for axis in range(x.dim()):
            x = x.narrow(axis, 0, length) if x.shape[axis] == count else x
        return x


def _lengths(rows: Tensor) -> Tensor | None:
    """Where each row ends, by what most of them end with; None where that stands elsewhere too, or all end alike."""
    if rows.dim() == 3:
        is_padding = (rows == 0).all(2)
    else:
        if len(rows.unique()) <= 2:
            return None  # a mask
        is_padding = rows == rows[:, -1].mode().values
    behind = is_padding.flip(1).long().cumprod(1).sum(1)
    lengths = rows.shape[1] - behind
    clean = bool((is_padding.sum(1) == behind).all()) and bool((lengths > 0).all())
    enough = float((behind > 0).float().mean()) >= _PADDED and len(lengths.unique()) > 1
    return lengths.cpu() if clean and enough else None


class _Readers(TorchFunctionMode):
    """Notes which functions run over so many positions."""

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.positions, self.attention = positions, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name == "softmax":
            self.attention |= isinstance(found, Tensor) and self.positions in found.shape[1:]
        else:
            self.attention |= name in _ATTENTION
        return found


def _asked_of(training: Training, batch: Any, loader: Any = None) -> Answer:
    call = outermost_call(training, batch)
    collation = Collation.of(batch, loader)
    given = _Sequences.of(list(tensors_in((call.args, call.kwargs))), collation)
    if given.ids.shape[0] == given.ids.shape[1] or len(given.chosen) < 2:
        raise NotAskedError(
            "there are as many positions as patterns" if len(given.chosen) > 1 else "too few are padded"
        )
    recurrent = list[str]()
    with replayable(call.module, draws=call.drew) as (module, run), contextlib.ExitStack() as hooks:

        def note(layer: nn.Module, args: tuple[Any, ...]) -> None:
            if args and not isinstance(args[0], PackedSequence):
                recurrent.append(type(layer).__name__)

        for layer in module.modules():
            if isinstance(layer, nn.RNNBase):
                hooks.callback(layer.register_forward_pre_hook(note).remove)

        def outputs(length: int) -> list[Tensor]:
            args, kwargs = mapped((call.args, call.kwargs), lambda x: given.shorter(x, length).clone())
            return [x.detach().float() for x in tensors_in(run(*args, **kwargs)) if x.is_floating_point() and x.dim()]

        with _Readers(given.positions) as readers:
            whole, again = outputs(given.positions), outputs(given.positions)
        try:
            short = outputs(given.left)
        except Exception as error:
            text = f"it reads sequences of one length only: {type(error).__name__}: {error}".partition("\n")[0]
            raise NotAskedError(text) from error
    if _change(whole, again, given) > UNEQUAL:
        raise NotAskedError("the same arguments give different outputs")
    change = _change(whole, short, given)
    if math.isnan(change):
        raise NotAskedError("the outputs of all sequences are the same")
    numbers = {"change": change, "cut": float(given.positions - given.left), "positions": float(given.positions)}
    numbers |= {"attention": float(readers.attention), "recurrence": float(bool(recurrent))}
    numbers["told"] = float(_is_told(batch, given))
    said = "no" if change <= LIMITS.change else f"yes, by {change:.3g} std"
    return Answer(f"{said}: {given.positions - given.left} of {given.positions} positions were cut off", numbers)


def _change(one: list[Tensor], other: list[Tensor], given: _Sequences) -> float:
    """Of the first output with the patterns in it, the root mean square of the change over their deviation."""
    real = torch.arange(given.left) < given.lengths[given.chosen][:, None]
    for x, y in zip(one, other, strict=False):
        if x.dim() != y.dim() or len(given.chosen) not in x.shape:
            continue
        differ = [axis for axis in range(x.dim()) if x.shape[axis] != y.shape[axis]]
        along = differ[0] if differ else next((k for k in range(x.dim()) if x.shape[k] == given.positions), None)
        if len(differ) > 1:
            continue
        if along is None:
            whole = x.shape.index(len(given.chosen))
            return _over_std(x.movedim(whole, 0), y.movedim(whole, 0))
        axis = next((k for k in range(x.dim()) if k != along and x.shape[k] == len(given.chosen)), None)
        if axis is None or x.shape[along] != given.positions:
            continue
        x, y = (each.movedim((axis, along), (0, 1))[:, : given.left] for each in (x, y))
        return _over_std(x[real.to(x.device)], y[real.to(y.device)])
    raise NotAskedError("no output has an axis of the patterns")


def _over_std(x: Tensor, y: Tensor) -> float:
    spread = (x - x.mean(0)).square().mean().sqrt()
    return float((x - y).square().mean().sqrt() / spread) if float(spread) > 0 else math.nan


def _is_told(batch: Any, given: _Sequences) -> bool:
    """Whether a tensor of the batch is their lengths, or a mask of what is no padding."""
    inside = torch.arange(given.positions) < given.lengths[:, None]
    inside = inside if given.time else inside.T
    for x in tensors_in(batch):
        x = x.detach().cpu()
        if x.shape == inside.shape and (torch.equal(x != 0, inside) or torch.equal(x == 0, inside)):
            if len(x.unique()) == 2:
                return True
        elif x.shape == given.lengths.shape and torch.equal(x.double(), given.lengths.double()):
            return True
    return False


@thresholds
class LIMITS:
    change: float = OF_BATCHES.mixes  # over std, as of other patterns


def _brings(subject: Subject, found: Experiment) -> Iterator[Finding]:
    """What reads everything, reads padding, though lengths are known or change from batch to batch."""
    numbers = found.numbers
    why = [Criterion("change of outputs by padding, over std", numbers["change"], ">", LIMITS.change)]
    kind = next((each for each in ("attention", "recurrence") if numbers[each]), "")
    if not why[0].holds or not kind or not (numbers["told"] or numbers.get("lengths", 1.0) > 1):
        return
    known = "though the batch holds the lengths" if numbers["told"] else "and batches are padded to their longest"
    explanation = (
        f"Most padding of the shorter sequences was cut off, and the network says something else of them "
        f"({numbers['change']:.2g} standard deviations), {known}: the same sequence has another answer beside others."
    )
    masked = Remedy("mask_padding", "tell attention what is padding: src_key_padding_mask=ids == 0 (key_padding_mask)")
    packed = Remedy(
        "pack_sequences",
        "pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False), or read each state at lengths - 1",
    )
    todo = masked if kind == "attention" else packed
    step = subject.diagnosis.history[0].step
    given = dict(numbers), explanation, (todo,)
    yield Finding(
        "batch_mixing", None, "warning", step, *given, traits=frozenset({Trait.PADDING}), decided_by=tuple(why)
    )


def _wanted(subject: Subject) -> bool:
    try:
        _Sequences.of(list(tensors_in(subject.batch)), Collation.of(subject.batch, subject.data))
    except NotAskedError:
        return False
    return True


@tried("padding", order=28, wanted=_wanted, brings=_brings)
def _in_checkup(subject: Subject) -> Experiment:
    made = _asked(subject.training.copy(), subject.batch, subject.data)
    if not made.conclusive:
        return made
    return dataclasses.replace(made, numbers={**made.numbers, "lengths": float(_different(subject))})


def _different(subject: Subject) -> int:
    """How many lengths its batches are padded to."""
    tensors = list(tensors_in(subject.batch))
    given = _Sequences.of(tensors, Collation.of(subject.batch, subject.data))
    place = next(k for k, x in enumerate(tensors) if x is given.ids)
    found = [list(tensors_in(batch)) for batch in (*subject.batches, *subject.drawn)]
    return len(
        {each[place].shape[given.time] for each in found if place < len(each) and each[place].dim() > given.time}
    )


_asked = asks(QUESTION, "padding")(_asked_of)
