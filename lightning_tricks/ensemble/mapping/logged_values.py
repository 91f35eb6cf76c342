"""What a member logs and measures in a step, caught there and replayed outside with the values of all members."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from lightning_tricks._compat.trees import tree_map

Metrics = dict[str, Metric | MetricCollection]  # by path


@dataclass(frozen=True)
class StoredTensor:
    """Stands for a tensor that has one value per member: its place in ``LoggedValues.tensors``."""

    index: int


@dataclass(frozen=True)
class MetricResult:
    """Stands for what a metric will return when it is called outside: its place among ``LoggedValues.calls``."""

    call: int


@dataclass(frozen=True)
class LoggedMetric:
    """Stands for a metric object that was logged as such: its path in the member."""

    path: str


@dataclass
class LoggedValues:
    """The calls of one step.

    Attributes:
        entries: (name, value, options of ``self.log``).
        calls: (path of a metric, method, arguments, keyword arguments); only where metrics are caught.
        tensors: What each StoredTensor stands for.
    """

    entries: list[tuple[str, Any, dict[str, Any]]] = field(default_factory=list)
    calls: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)

    def store(self, tree: Any) -> Any:
        return tree_map(self._store, tree)

    def _store(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        self.tensors.append(value.detach())
        return StoredTensor(len(self.tensors) - 1)


@dataclass
class StackedLoggedValues:
    """What a mapped step logged, its tensors ``[K, ...]`` with one row per member, and the members' numbers."""

    logged: LoggedValues
    active: list[int]


def metrics_of(member: nn.Module) -> Metrics:
    """A member's metrics by path; of a collection the collection only."""
    found: Metrics = {}
    for path, module in member.named_modules():
        if isinstance(module, (Metric, MetricCollection)) and not any(path.startswith(f"{p}.") for p in found):
            found[path] = module
    return found


@contextlib.contextmanager
def capture_logging(member: Any, logged: LoggedValues, metrics: Metrics | None = None) -> Iterator[None]:
    """Catch ``self.log`` and ``self.log_dict``; and the calls of the metrics in ``metrics``, which then do not run."""

    def log(name: str, value: Any, *args: Any, **options: Any) -> None:
        options.update(zip(("prog_bar", "logger", "on_step", "on_epoch"), args, strict=False))
        options.pop("metric_attribute", None)
        if isinstance(value, Metric):
            paths = [path for path, module in member.named_modules() if module is value]
            if not paths:
                raise ValueError(f"self.log({name!r}, ...) got a metric that is not an attribute of the member")
            value = LoggedMetric(paths[0])
        elif not isinstance(value, MetricResult):
            value = logged.store(value)
        logged.entries.append((name, value, options))

    def log_dict(dictionary: Any, *args: Any, **options: Any) -> None:
        if isinstance(dictionary, MetricResult):
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
    for path, metric in (metrics or {}).items():
        for method in ("forward", "update"):
            put(metric, method, _catcher(logged, path, method))
    try:
        yield
    finally:
        for owner, name, old in reversed(replaced):
            if old is _ABSENT:
                del owner.__dict__[name]
            else:
                owner.__dict__[name] = old


_ABSENT = object()


def _catcher(logged: LoggedValues, path: str, method: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> MetricResult:
        logged.calls.append((path, method, logged.store(args), logged.store(kwargs)))
        return MetricResult(len(logged.calls) - 1)

    return call


@dataclass
class MemberValues:
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


def merge(all_logged: dict[int, LoggedValues] | StackedLoggedValues, members: list[Any]) -> list[MemberValues]:
    """Records of members as one list with the values of all of them, in order of appearance."""
    if isinstance(all_logged, StackedLoggedValues):
        return _merge_stacked(all_logged)
    merged: dict[str, MemberValues] = {}
    for member, logged in all_logged.items():
        returned: list[Any] = []
        for path, method, args, kwargs in logged.calls:
            fill = _filler(logged, None)
            called = getattr(members[member].get_submodule(path), method)
            returned.append(called(*tree_map(fill, args), **tree_map(fill, kwargs)))
        fill = _filler(logged, returned)
        for name, value, options in logged.entries:
            entry = merged.setdefault(name, MemberValues(name, {}, options))
            entry.values[member] = fill(value)
    return list(merged.values())


def _merge_stacked(all_logged: StackedLoggedValues) -> list[MemberValues]:
    merged: dict[str, MemberValues] = {}
    for name, value, options in all_logged.logged.entries:
        if isinstance(value, LoggedMetric):
            merged[name] = MemberValues(name, dict.fromkeys(all_logged.active, value), options)
            continue
        if isinstance(value, StoredTensor):
            stacked = all_logged.logged.tensors[value.index]
        else:
            stacked = as_number(value).expand(len(all_logged.active))
        merged[name] = MemberValues(name, dict.fromkeys(all_logged.active), options, stacked)
    return list(merged.values())


def split_by_member(logged: LoggedValues, active: list[int]) -> dict[int, LoggedValues]:
    """What a mapped step logged as what each member logged."""
    return {
        member: LoggedValues(logged.entries, logged.calls, [tensor[row] for tensor in logged.tensors])
        for row, member in enumerate(active)
    }


def _filler(logged: LoggedValues, returned: list[Any] | None) -> Any:
    def fill(value: Any) -> Any:
        if isinstance(value, StoredTensor):
            return logged.tensors[value.index]
        if isinstance(value, MetricResult) and returned is not None:
            return returned[value.call]
        return value

    return fill


def as_number(value: Any) -> Tensor:
    """A logged value as a detached scalar."""
    return torch.as_tensor(value, dtype=torch.get_default_dtype() if not isinstance(value, Tensor) else None).detach()
