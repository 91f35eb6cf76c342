"""What a member logs and measures in a step, caught there and replayed outside with the values of all members."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torchmetrics import Metric, MetricCollection


@dataclass(frozen=True)
class Slot:
    """Stands for a tensor that has one value per member: its place in ``Record.tensors``."""

    index: int


@dataclass(frozen=True)
class Pending:
    """Stands for what a metric will return when it is called outside: its place among ``Record.calls``."""

    call: int


@dataclass(frozen=True)
class Tracked:
    """Stands for a metric object that was logged as such: its path in the member."""

    path: str


@dataclass
class Record:
    """The calls of one step.

    Attributes:
        logged: (name, value, options of ``self.log``).
        calls: (path of a metric, method, arguments, keyword arguments); only where metrics are caught.
        tensors: What Slots stand for.
    """

    logged: list[tuple[str, Any, dict[str, Any]]] = field(default_factory=list)
    calls: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)

    def slot(self, tree: Any) -> Any:
        return tree_map(self._slot, tree)

    def _slot(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        self.tensors.append(value.detach())
        return Slot(len(self.tensors) - 1)


@dataclass
class StackedRecord:
    """What a mapped step logged, its tensors ``[K, ...]`` with one row per member, and the members' numbers."""

    record: Record
    active: list[int]


def metrics_of(member: nn.Module) -> dict[str, Metric | MetricCollection]:
    """A member's metrics by path; of a collection the collection only."""
    found: dict[str, Metric | MetricCollection] = {}
    for path, module in member.named_modules():
        if isinstance(module, (Metric, MetricCollection)) and not any(path.startswith(f"{p}.") for p in found):
            found[path] = module
    return found


@contextlib.contextmanager
def recording(member: Any, record: Record, catch: dict[str, Metric | MetricCollection] | None = None) -> Iterator[None]:
    """Catch ``self.log`` and ``self.log_dict``; and the calls of the metrics in ``catch``, which then do not run."""

    def log(name: str, value: Any, *args: Any, **options: Any) -> None:
        options.update(zip(("prog_bar", "logger", "on_step", "on_epoch"), args, strict=False))
        options.pop("metric_attribute", None)
        if isinstance(value, Metric):
            paths = [path for path, module in member.named_modules() if module is value]
            if not paths:
                raise ValueError(f"self.log({name!r}, ...) got a metric that is not an attribute of the member")
            value = Tracked(paths[0])
        elif not isinstance(value, Pending):
            value = record.slot(value)
        record.logged.append((name, value, options))

    def log_dict(dictionary: Any, *args: Any, **options: Any) -> None:
        if isinstance(dictionary, Pending):
            raise TypeError("log_dict of what a MetricCollection returned")
        pairs = dictionary.items(keep_base=False) if isinstance(dictionary, MetricCollection) else dictionary.items()
        for name, value in pairs:
            log(name, value, *args, **options)

    replaced: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, function: Any) -> None:
        replaced.append((owner, name, owner.__dict__.get(name, _ABSENT)))
        owner.__dict__[name] = function

    put(member, "log", log)
    put(member, "log_dict", log_dict)
    for path, metric in (catch or {}).items():
        for method in ("forward", "update"):
            put(metric, method, _catcher(record, path, method))
    try:
        yield
    finally:
        for owner, name, old in reversed(replaced):
            if old is _ABSENT:
                del owner.__dict__[name]
            else:
                owner.__dict__[name] = old


_ABSENT = object()


def _catcher(record: Record, path: str, method: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Pending:
        record.calls.append((path, method, record.slot(args), record.slot(kwargs)))
        return Pending(len(record.calls) - 1)

    return call


@dataclass
class Logged:
    """One name with the values of the members: one each (or the paths of metrics that were logged as objects)."""

    name: str
    values: dict[int, Any]
    options: dict[str, Any]
    stacked: Tensor | None = None

    def numbers(self) -> tuple[tuple[int, ...], Tensor]:
        """The members that logged, and their values ``[K]``."""
        if self.stacked is None:
            return tuple(self.values), torch.stack([as_number(value) for value in self.values.values()])
        return tuple(self.values), self.stacked


def merge(records: dict[int, Record] | StackedRecord, members: list[Any]) -> list[Logged]:
    """Records of members as one list with the values of all of them, in order of appearance."""
    if isinstance(records, StackedRecord):
        return _merge_stacked(records)
    merged: dict[str, Logged] = {}
    for member, record in records.items():
        returned: list[Any] = []
        for path, method, args, kwargs in record.calls:
            fill = _filler(record, None)
            called = getattr(members[member].get_submodule(path), method)
            returned.append(called(*tree_map(fill, args), **tree_map(fill, kwargs)))
        fill = _filler(record, returned)
        for name, value, options in record.logged:
            entry = merged.setdefault(name, Logged(name, {}, options))
            entry.values[member] = fill(value)
    return list(merged.values())


def _merge_stacked(records: StackedRecord) -> list[Logged]:
    merged: dict[str, Logged] = {}
    for name, value, options in records.record.logged:
        if isinstance(value, Tracked):
            merged[name] = Logged(name, dict.fromkeys(records.active, value), options)
            continue
        if isinstance(value, Slot):
            stacked = records.record.tensors[value.index]
        else:
            stacked = as_number(value).expand(len(records.active))
        merged[name] = Logged(name, dict.fromkeys(records.active), options, stacked)
    return list(merged.values())


def split(record: Record, active: list[int]) -> dict[int, Record]:
    """A record whose tensors have one value per member, as one record per member."""
    return {
        member: Record(record.logged, record.calls, [tensor[row] for tensor in record.tensors])
        for row, member in enumerate(active)
    }


def _filler(record: Record, returned: list[Any] | None) -> Any:
    def fill(value: Any) -> Any:
        if isinstance(value, Slot):
            return record.tensors[value.index]
        if isinstance(value, Pending) and returned is not None:
            return returned[value.call]
        return value

    return fill


def as_number(value: Any) -> Tensor:
    """A logged value as a detached scalar."""
    return torch.as_tensor(value, dtype=torch.get_default_dtype() if not isinstance(value, Tensor) else None).detach()
