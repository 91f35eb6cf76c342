"""A summary: what a network is made of, and how its signals start."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from lightning_tricks._compat import lightning as compat
from lightning_tricks._compat.compiled import original_of
from lightning_tricks._compat.messages import ShownAsText
from lightning_tricks.checkup import copy_of, device_of
from lightning_tricks.diagnosis import RULES, Finding, diagnose
from lightning_tricks.diagnosis.diagnosis import at
from lightning_tricks.diagnosis.finding import plain
from lightning_tricks.diagnosis.registry import wording
from lightning_tricks.model.arguments import check_module
from lightning_tricks.model.batches import Forward, run_model, tensors_in
from lightning_tricks.model.isolated import keep_random_numbers
from lightning_tricks.probes import ActivationRecord, Probe, Snapshot, WeightedRecord
from lightning_tricks.probes.records.record import to_json
from lightning_tricks.report.layers import COLUMNS
from lightning_tricks.report.words import evidence, number

_SEEN = {"layers", "activations", "error signals", "gradients"}  # without a loss, and without a step
_SUMS = ("linear", "conv", "matmul", "bmm", "addmm", "einsum")  # operations whose outputs are weighted sums
_MOST_ROWS = 60
_HEADINGS = ("layer", "what it is", "output", "parameters", "predicted", "std", "linear", "passes")
_Record: TypeAlias = WeightedRecord | ActivationRecord


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """One layer.

    Args:
        name: Its path; of a function that a module calls itself, as in a diagnosis.
        kind: The class, the weighted operation or the activation.
        shape: Of the output; empty where it is no tensor, or the layer no module.
        parameters: Number of its own parameters, counted once, where they are used first.
        trainable: How many of these can be trained.
        predicted: Standard deviation over patterns of the output, if what comes in were independent: the root of the
            mean over units of the summed squared weights, times the standard deviation of what comes in.
        std: The same as measured; of an activation that of what enters it.
        linearity, transmission: Of an activation, as in a diagnosis.
        why_not: Why a weighted layer has no prediction.
    """

    name: str
    kind: str
    shape: tuple[int, ...] = ()
    parameters: int = 0
    trainable: int = 0
    predicted: float = math.nan
    std: float = math.nan
    linearity: float = math.nan
    transmission: float = math.nan
    why_not: str = ""


@dataclasses.dataclass(frozen=True)
class Summary(ShownAsText):
    """The layers in the order of execution, and what starts badly; printed as a table.

    Args:
        layers: A row each.
        findings: What the rules say of this start; what is "info" may mend itself.
        parameters: Number of all parameters.
        trainable: How many of these can be trained.
        snapshot: All that was measured.
    """

    layers: tuple[LayerSummary, ...]
    findings: tuple[Finding, ...]
    parameters: int
    trainable: int
    snapshot: Snapshot = dataclasses.field(repr=False)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        shown: Sequence[LayerSummary] = self.layers
        if len(shown) > _MOST_ROWS:
            shown = [*shown[: _MOST_ROWS // 2], *shown[-_MOST_ROWS // 2 :]]
        rows = [_HEADINGS, *map(_cells, shown)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
        for i, row in enumerate(rows):
            if len(shown) < len(self.layers) and i == _MOST_ROWS // 2 + 1:
                yield f"... {len(self.layers) - len(shown)} more layers ..."
            cells = (c.rjust(w) if k > 2 else c.ljust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True)))
            yield "  ".join(cells).rstrip()
        yield ""
        frozen = self.parameters - self.trainable
        yield f"{self.parameters:,} parameters" + (f", of which {frozen:,} are frozen" if frozen else "")
        yield "predicted: std of the output, by the weights, if what comes in were independent; std: as measured"
        for name in ("linearity", "transmission"):
            yield f"{COLUMNS[name].heading}: {COLUMNS[name].word}"
        missed = {row.why_not: row.name for row in reversed(self.layers) if row.why_not}
        yield from (f"not predicted: {name}: {why}" for why, name in missed.items())
        yield from (f"not seen: {name}: {why}" for name, why in self.snapshot.not_seen.items())
        yield ""
        if not self.findings:
            yield "Nothing starts badly."
            return
        yield "What starts badly (what is info may mend itself in training):"
        for finding in _tree(self.findings):
            yield f"- {finding.severity}: {wording(finding.problem).heading}{at(finding.layer)}: " + "; ".join(
                evidence(finding.evidence)[:3]
            )
            if finding.remedies:
                yield f"  what to do: {finding.remedies[0]}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, without the snapshot."""
        whole: dict[str, Any] = {
            "parameters": self.parameters,
            "trainable": self.trainable,
            "layers": [to_json(dataclasses.asdict(row)) for row in self.layers],
            "findings": plain(list(self.findings)),
        }
        return whole


def summary(model: nn.Module, batch: Any, *, forward: Forward | None = None) -> Summary:
    """The layers of a model with shapes, parameters and how signals start, by one pass on a copy; the model stays.

    The copy runs once in training mode, forward and, from a random direction of its output, backward; no target is
    needed. Of what a training of some steps would show, :func:`lightning_tricks.checkup` tells.

    Args:
        model: Any module, a LightningModule with a ``forward`` too.
        batch: What it takes; of a tuple or list the first element.
        forward: ``forward(model, batch)`` where that is not how it is called.

    Raises:
        TypeError: Not a module, or a LightningModule without ``forward``.
        RuntimeError: The model cannot be copied, or what its forward raises.

    >>> net = nn.Sequential(nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10))
    >>> found = summary(net, torch.randn(256, 400))
    >>> [(row.name, row.kind, row.shape, row.parameters) for row in found.layers]
    [('0', 'Linear', (256, 400), 160400), ('1', 'ReLU', (256, 400), 0), ('2', 'Linear', (256, 10), 4010)]
    >>> abs(found.layers[0].predicted - found.layers[0].std) < 0.05
    True
    """
    check_module(model)
    model = original_of(model)
    if forward is None and compat.is_lightning_module(model) and not compat.has_forward(model):
        raise TypeError(
            f"{type(model).__name__} has no forward: tell how it is called, forward=lambda model, batch: ..."
        )
    with keep_random_numbers(), torch.enable_grad():
        own, _ = copy_of(model, None)
        if not own.training:
            own.train()
        calls, snapshot = _run(own, compat.move_data_to_device(batch, device_of(own)), forward)
    rules = [rule.problem for rule in RULES if not rule.needs or not rule.needs <= _SEEN]
    findings = diagnose([snapshot], ignore=rules).findings
    parameters = dict(own.named_parameters())
    return Summary(
        tuple(_rows(own, calls, snapshot, parameters)),
        tuple(findings),
        sum(p.numel() for p in parameters.values()),
        sum(p.numel() for p in parameters.values() if p.requires_grad),
        snapshot,
    )


class _Call(NamedTuple):
    """The first call of a module that is a row: the shape of what it puts out, and how many calls were recorded."""

    shape: tuple[int, ...]
    order: int


def _run(model: nn.Module, batch: Any, forward: Forward | None) -> tuple[dict[str, _Call], Snapshot]:
    """The calls by name, and the snapshot."""
    calls: dict[str, _Call] = {}
    probe = Probe(model, None)

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            calls.setdefault(name, _Call(tuple(next((t.shape for t in tensors_in(output)), ())), probe.tallies.order))

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for name, module in model.named_modules()
        if not list(module.children()) or list(module.parameters(recurse=False))
    ]
    try:
        with probe:
            output = run_model(model, batch, forward)
            outputs = [tensor for tensor in tensors_in(output) if tensor.requires_grad]
            if outputs:
                torch.autograd.backward(outputs, [_direction(tensor) for tensor in outputs])
    finally:
        for handle in handles:
            handle.remove()
    return calls, probe.snapshot()


def _direction(output: Tensor) -> Tensor:
    """A random one of length 1 per pattern."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(output.shape, generator=generator).to(output.device, output.dtype)
    return drawn / max(drawn.numel(), 1) ** 0.5


def _rows(
    model: nn.Module, calls: Mapping[str, _Call], snapshot: Snapshot, parameters: Mapping[str, Tensor]
) -> Iterator[LayerSummary]:
    modules, records = dict(model.named_modules()), dict[str, _Record]()
    both: list[_Record] = [*snapshot.weighted, *snapshot.activations]
    for each in both:
        records.setdefault(each.name, each)
    owned: dict[str, list[str]] = {}
    for name in parameters:
        owned.setdefault(name.rpartition(".")[0], []).append(name)
    order = {name: (call.order, 1) for name, call in calls.items()}
    order |= {name: (each.order, 0) for name, each in records.items()}
    for name in sorted(order, key=lambda name: order[name]):
        record, call = records.get(name), calls.get(name)
        own = owned.pop(name, []) if call is not None else []
        if call is None and isinstance(record, WeightedRecord) and record.weight is not None:
            owner = record.weight.rpartition(".")[0]
            own = owned.pop(owner, []) if owner not in calls else []  # as of an attention's output projection
        kind = type(modules[name]).__name__ if call is not None else _function(record)
        row = LayerSummary(name or "(model)", kind, call.shape if call else (), *_count(own, parameters))
        yield _with_measures(row, record, parameters)
    for owner, names in owned.items():
        kind = type(modules[owner]).__name__ if owner in modules else "parameter"
        yield LayerSummary(owner or "(model)", f"{kind}, never called", (), *_count(names, parameters))


def _with_measures(row: LayerSummary, record: _Record | None, parameters: Mapping[str, Tensor]) -> LayerSummary:
    if isinstance(record, ActivationRecord):
        return dataclasses.replace(
            row, std=record.std, linearity=record.linearity, transmission=record.transmission
        )  # fmt: skip
    if record is None:
        return row
    predicted, why_not = _predicted(record, parameters)
    return dataclasses.replace(row, std=record.std, predicted=predicted, why_not=why_not)


@torch.no_grad()
def _predicted(record: WeightedRecord, parameters: Mapping[str, Tensor]) -> tuple[float, str]:
    """And why there is none."""
    weight = parameters.get(record.weight or "")
    if weight is None:
        return math.nan, f"the weights of {record.operation} are computed, or several tensors"
    if math.isnan(record.input_std) or not record.fan_in or not record.operation.startswith(_SUMS):
        return math.nan, f"the output of {record.operation} is no weighted sum of numbers that are known"
    return record.input_std * float(weight.double().square().mean() * record.fan_in) ** 0.5, ""


def _count(names: Sequence[str], parameters: Mapping[str, Tensor]) -> tuple[int, int]:
    own = [parameters[name] for name in names]
    return sum(p.numel() for p in own), sum(p.numel() for p in own if p.requires_grad)


def _function(record: _Record | None) -> str:
    return record.operation if isinstance(record, WeightedRecord) else record.function if record is not None else ""


def _cells(row: LayerSummary) -> tuple[str, ...]:
    shape = " x ".join(map(str, row.shape))
    values = (row.predicted, row.std, row.linearity, row.transmission)
    count = f"{row.parameters:,}" if row.parameters else ""
    return row.name, row.kind, shape, count, *("" if math.isnan(value) else number(value) for value in values)


def _tree(findings: Sequence[Finding]) -> Iterator[Finding]:
    for finding in findings:
        yield finding
        yield from _tree(finding.consequences)
