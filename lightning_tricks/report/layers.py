"""One row per layer of a snapshot, in the order of execution: the numbers of the text table."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lightning_tricks.diagnosis.history.error_signal import ErrorSignalByLayer
from lightning_tricks.probes import ActivationRecord, ParameterRecord, Snapshot, WeightedRecord
from lightning_tricks.probes.records.record import Measure, StepRecord
from lightning_tricks.report.glossary import SIGNAL, Word, of_measure
from lightning_tricks.report.words import number, rounded

_WHOLE, _HEAD, _FAULTY, _TAIL = 24, 8, 6, 5


class TableColumn(NamedTuple):
    """A column of numbers: its heading, its width, how it is written, what it is called and means."""

    heading: str
    width: int
    write: Callable[[float], str]
    word: Word


def _plain(value: float) -> str:
    return _first_that_fits(7, [number(value)], value)


def _scientific(value: float) -> str:
    return _first_that_fits(7, [], value) if value else "0"


def _factor(value: float) -> str:
    return _first_that_fits(6, [rounded(value, ".3f"), number(value)], value)


def _powers(value: float) -> Iterator[str]:
    """``-2.2e-3`` and ``-2e-3``: without the zero that Python puts before a short exponent."""
    for digits in (1, 0):
        mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
        yield f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _first_that_fits(width: int, texts: Sequence[str], value: float) -> str:
    last = ""
    for last in itertools.chain(texts, _powers(value)):
        if len(last) <= width:
            break
    return last


_WRITERS: dict[str, Callable[[float], str]] = {"number": _plain, "power": _scientific, "factor": _factor}


def columns_of(records: Iterable[type[StepRecord]]) -> dict[str, Measure]:
    """The measures with a heading, by name."""
    return {name: measure for kind in records for name, measure in kind.MEASURES.items() if measure.heading}


def _column(name: str, measure: Measure) -> TableColumn:
    write = _WRITERS.get(measure.format, lambda value: rounded(value, measure.format))
    return TableColumn(measure.heading, measure.width, write, of_measure(name, measure))


_KINDS: tuple[type[StepRecord], ...] = (ActivationRecord, ParameterRecord)
_SHOWN = columns_of(_KINDS)
_COUNTED = {name for name, measure in _SHOWN.items() if measure.counted}
COLUMNS = {name: _column(name, measure) for name, measure in _SHOWN.items()}
_PLACE = list(COLUMNS).index("transmission")
COLUMNS = dict([*list(COLUMNS.items())[:_PLACE], ("signal", TableColumn("signal", 7, _scientific, SIGNAL))]) | COLUMNS
# What a narrow terminal does without, in this order.
_NEEDED = {"signal": 7} | {name: measure.needed for name, measure in _SHOWN.items()}
LEAST_NEEDED = tuple(sorted(COLUMNS, key=lambda name: _NEEDED[name]))
# Numbers of a layer that have no column, but a picture each on the page.
_BESIDE = {name for kind in _KINDS for name, each in kind.MEASURES.items() if each.meaning and not each.heading}


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer.

    Args:
        names: The recorded names that the row stands for: a weighted operation, its activation, or both.
        function: What is computed there.
        values: The measures by name, without those that do not apply.
        nonfinite: Whether a NaN or an Inf was met.
        constant: Whether the activation gave the same for every pattern: then it has no linearity.
    """

    names: tuple[str, ...]
    function: str
    values: dict[str, float]
    nonfinite: bool = False
    constant: bool = False

    def label(self, under: str = "") -> str:
        """``"net.0, .1"`` for a weighted operation and the activation right behind it; below a module without it."""
        first = self.first(under)
        rest = [name[len(self.names[0]) - len(first) :] for name in self.names[1:] if name != self.names[0]]
        return first + "".join(f", {name[len(_parent(first)) :]}" for name in rest)

    def first(self, under: str = "") -> str:
        """The name of the weighted operation, or of an activation that stands alone."""
        return self.names[0][len(under) + 1 if under else 0 :]


def layer_rows(snapshot: Snapshot, globs: Sequence[str] = ("*",)) -> list[Row]:
    """Every weighted operation and activation in the order of execution, of the layers whose name matches.

    An activation that takes the output of the weighted operation before it, of the same module, shares a row with it.
    """
    signals, snapshot = ErrorSignalByLayer.of(snapshot).relative, snapshot.matching(globs)
    ratios = {record.layer: record for record in snapshot.parameters if record.layer and len(record.shape) > 1}
    rows: list[Row] = []
    last: WeightedRecord | None = None
    records: list[ActivationRecord | WeightedRecord] = [*snapshot.activations, *snapshot.weighted]
    for record in sorted(records, key=lambda record: record.order):
        if isinstance(record, WeightedRecord):
            rows.append(_of_weighted(record, ratios.get(record.name), signals))
            last = record
            continue
        row = _of_activation(record)
        if last is not None and _takes(record, last):
            before = rows.pop()
            function = f"{before.function}, {row.function}"
            nonfinite = before.nonfinite or row.nonfinite
            values = before.values | row.values
            row = Row((*before.names, *row.names), function, values, nonfinite, row.constant)
        rows.append(row)
        last = None
    return [_without_shares(row) if row.nonfinite else row for row in rows]


def choose(rows: Sequence[Row], faulty: Collection[str]) -> list[Row | int]:
    """The rows to show of a long model: the first, the first faulty ones, the last; numbers count what is left out."""
    if len(rows) <= _WHOLE:
        return list(rows)
    sick = [i for i, row in enumerate(rows) if row.nonfinite or any(name in faulty for name in row.names)]
    shown = sorted({*range(_HEAD), *sick[:_FAULTY], *range(len(rows) - _TAIL, len(rows))})
    chosen: list[Row | int] = []
    for i in shown:
        gap = i - (shown[shown.index(i) - 1] if i else -1) - 1
        chosen += [gap, rows[i]] if gap else [rows[i]]
    return chosen


def _of_weighted(record: WeightedRecord, parameter: ParameterRecord | None, signals: Mapping[str, float]) -> Row:
    values = {name: value for name, value in _shown(record).items() if name not in _BESIDE}
    values["signal"] = signals.get(record.name, math.nan)
    if parameter is not None:
        values |= _shown(parameter)
    return Row((record.name,), record.operation, _known(values), record.nonfinite or record.nonfinite_input)


def _of_activation(record: ActivationRecord) -> Row:
    values = _shown(record)
    if not math.isnan(record.activity):
        values.pop("saturation")  # a rectifier's flat side is the share on which it is not active, and no fault
    function = f"{record.function} (gate)" if record.gate else record.function
    return Row((record.name,), function, _known(values), record.nonfinite, is_constant(record))


def is_constant(record: ActivationRecord) -> bool:
    """Whether the output is the same for every pattern, up to rounding: then no straight line can be told from it."""
    measured = record.patterns > 1 and not math.isnan(record.variation)
    return measured and (math.isnan(record.linearity) or record.dead_share == 1.0)


def _shown(record: StepRecord) -> dict[str, float]:
    return {name: getattr(record, name) for name in record.MEASURES if name in COLUMNS or name in _BESIDE}


def _without_shares(row: Row) -> Row:
    """NaN is neither above nor below a threshold, so no share that is counted by one says anything."""
    return dataclasses.replace(row, values={k: v for k, v in row.values.items() if k not in _COUNTED})


def _takes(activation: ActivationRecord, weighted: WeightedRecord) -> bool:
    same: Any = [(activation.mean, weighted.mean), (activation.std, weighted.std)]
    return _parent(activation.name) == _parent(weighted.name) and all(
        math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6) for a, b in same
    )


def _known(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
