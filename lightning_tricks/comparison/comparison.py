"""compare: two runs side by side, and where they part."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_tricks._compat.messages import ShownAsText
from lightning_tricks.comparison.histories import history_of
from lightning_tricks.comparison.measured import LAYERS, MEASURES, Compared, MeasuredSeries, scale_of_losses, series_of
from lightning_tricks.comparison.page import Both, row_of, write_page
from lightning_tricks.comparison.parting import Parting, parting
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.record import to_json
from lightning_tricks.report.figures.comparison import comparison as side_by_side
from lightning_tricks.report.names import shared_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NAMED = 6
_OF_LAYERS = {measure.name for measure in LAYERS}


@dataclasses.dataclass(frozen=True)
class Comparison(ShownAsText):
    """Where two runs part; ``print(comparison)`` shows it as a table.

    Args:
        names: What the two runs are called.
        partings: Of each measure that parts the first place, the earliest first.
        compared: Names of all measures that both runs have.
        layers: How many layers both have.
        only: Layers, and parameters of none, that only the first run has, and only the second.
        steps: The first and the last step at which both were looked at; None where there is no such step.
        looks: How many looks each has.
        histories: The snapshots of both.
    """

    names: tuple[str, str]
    partings: tuple[Parting, ...]
    compared: tuple[str, ...]
    layers: int
    only: tuple[tuple[str, ...], tuple[str, ...]]
    steps: tuple[int, int] | None
    looks: tuple[int, int]
    histories: tuple[list[Snapshot], list[Snapshot]] = dataclasses.field(repr=False, compare=False)

    @property
    def first(self) -> Parting | None:
        """Where they part first: among the layers, else in the whole model; None where they do not part."""
        inside = [each for each in self.partings if each.measure in _OF_LAYERS]
        return next(iter((*inside, *self.partings)), None)

    @property
    def part(self) -> bool:
        """Whether they differ by more than two seeds of one training do."""
        return self.first is not None

    @property
    def verdict(self) -> str:
        """One sentence."""
        one, other = self.names
        if self.steps is None:
            return f"{other} cannot be compared with {one}: they were looked at at no step in common."
        if not self.compared or not (self.layers or self.part):
            return f"{other} cannot be compared with {one}: they have no layer of one name."
        if self.first is None:
            apart = [f"{len(names)} only in {run}" for run, names in zip(self.names, self.only, strict=True) if names]
            but = f" (layers: {', '.join(apart)})" if apart else ""
            return (
                f"{other} does not part from {one}: from step {self.steps[0]} to {self.steps[1]} they differ no more "
                f"than two seeds of one training{but}."
            )
        whole = [each for each in self.partings if each.layer is None and each is not self.first]
        before = [each for each in whole if each.step <= self.first.step]
        also = f" ({'; '.join(f'{each.measure} {each.difference} from step {each.step} on' for each in before)})"
        return f"{other} parts from {one} {self.first}{also if before else ''}."

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield self.verdict[0].upper() + self.verdict[1:]
        if self.partings:
            yield ""
            yield from _aligned(
                [("measure", "parts at", "layer", *self.names, "difference"), *map(row_of, self.partings)]
            )
        if self.steps is not None and self.compared:
            yield ""
        yield from self.notes()

    def notes(self) -> Iterator[str]:
        """What was compared, and what was not."""
        if self.steps is not None and self.compared:
            whole = [name for name in self.compared if name not in {each.measure for each in self.partings}]
            if whole and self.partings:
                yield f"No more apart than two seeds: {', '.join(whole)}."
            between = f"from step {self.steps[0]} to {self.steps[1]}"
            yield f"Compared: {self.layers} layers {between}; {self.looks[0]} probed steps of {self.names[0]}, " + (
                f"{self.looks[1]} of {self.names[1]}."
            )
        for name, layers in zip(self.names, self.only, strict=True):
            if layers:
                more = f" and {len(layers) - _MOST_NAMED} more" if len(layers) > _MOST_NAMED else ""
                yield f"Only in {name}: {', '.join(layers[:_MOST_NAMED])}{more}."

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, without the histories."""
        plain: dict[str, Any] = to_json(
            {
                "verdict": self.verdict,
                "part": self.part,
                "names": self.names,
                "partings": [each.to_dict() for each in self.partings],
                "compared": self.compared,
                "layers": self.layers,
                "only": self.only,
                "steps": self.steps,
                "looks": self.looks,
            }
        )
        return plain

    def figure(self) -> Figure:
        """Both runs side by side by depth (matplotlib); see :func:`lightning_tricks.report.comparison`."""
        figure: Figure = side_by_side(*self.histories, names=self.names, title=self.verdict)
        return figure

    def to_html(self, path: str | pathlib.Path) -> pathlib.Path:
        """Write one page that holds all of it and loads nothing: where they part, both losses, every layer and step."""
        return write_page(self, _measured(self.histories), scale_of_losses(self.histories[0]), path)


def compare(a: Any, b: Any, *, names: tuple[str, str] = ("run A", "run B")) -> Comparison:
    """Where two runs part: by measure the first step and, at that step, the first layer.

    Of a measure that comes into being from the first layer to the last, such as the standard deviation of what a layer
    puts out, the first layer is that in the order of execution; of the error signal and of updates it is the one
    nearest to the loss. Runs part where a measure stays apart for three looks in a row by more than two seeds of one
    healthy training do, beside what is ordinary from one look to the next; NaN and Inf count at once. Looks need not
    be at the same steps, and layers not below the same module.

    Args:
        a: The first run: a list of snapshots, what has one as its ``history`` (a diagnosis, a doctor, a monitor), or
            the path of a table (``to_csv``), of a diagnosis as JSON (``to_dict``), or of a checkpoint with a doctor.
        b: The second run.
        names: What to call them.

    Raises:
        TypeError, ValueError, OSError: One of them is nothing of these, holds no history, or cannot be read.

    >>> def run(last):
    ...     signal = [1e-3, 1e-3, 1e-3, last, last, last]
    ...     layers = lambda i: (_layer("encoder.3", 0, signal[i]), _layer("head", 1, 0.1))
    ...     return [Snapshot(10 * i, weighted=layers(i)) for i in range(6)]
    >>> from lightning_tricks.probes import WeightedRecord
    >>> _layer = lambda name, order, signal: WeightedRecord(name, order=order, std=1.0, error_signal=signal)
    >>> compare(run(1e-3), run(3e-2)).verdict
    'run B parts from run A at step 30 in encoder.3: error signal 30.0 x.'
    """
    histories = history_of(a), history_of(b)
    names_of = _named_both(histories)
    guess = scale_of_losses(histories[0])
    found: list[Parting] = []
    compared: list[str] = []
    for measure, ours, their in _measured(histories):
        if ours.keys() & their.keys():
            compared.append(measure.name)
        found += _first(measure, ours, their, guess)
    found.sort(key=_came_first)
    mine, theirs = ({name_of.get(name, name) or "" for name in _names(history)}
                    for name_of, history in zip(names_of, histories, strict=True))  # fmt: skip
    ends = max(h[0].step for h in histories), min(h[-1].step for h in histories)
    return Comparison(
        names,
        tuple(found),
        tuple(compared),
        len(_layers(mine & theirs)),
        (tuple(_layers(mine - theirs)), tuple(_layers(theirs - mine))),
        ends if ends[0] <= ends[1] else None,
        (len(histories[0]), len(histories[1])),
        (list(histories[0]), list(histories[1])),
    )


def _measured(histories: tuple[list[Snapshot], list[Snapshot]]) -> list[Both]:
    """Every measure of both runs by layer, under names of layers that both have."""
    names_of, both = _named_both(histories), list[Both]()
    for measure in MEASURES:
        ours, their = ({name_of.get(layer, layer): each for layer, each in series_of(history, measure).items()}
                       for name_of, history in zip(names_of, histories, strict=True))  # fmt: skip
        both.append((measure, ours, their))
    return both


def _first(
    measure: Compared,
    ours: Mapping[str | None, MeasuredSeries],
    their: Mapping[str | None, MeasuredSeries],
    guess: float,
) -> list[Parting]:
    """Of one measure, in a list; an empty one where it does not part."""
    found = [parting(measure, layer, ours[layer], their[layer], guess) for layer in ours if layer in their]
    way = -1 if measure.backward else 1
    return sorted((each for each in found if each), key=lambda each: (each.step, way * each.place))[:1]


def _came_first(each: Parting) -> tuple[int, int, int, int]:
    """Within a step what lies on the way forward comes first, by its layer, then what comes back, then the whole."""
    index, measure = next((i, measure) for i, measure in enumerate(MEASURES) if measure.name == each.measure)
    group = 2 if each.layer is None else int(measure.backward)
    return each.step, group, 0 if group else each.place, index


def _named_both(histories: Sequence[Sequence[Snapshot]]) -> list[dict[str | None, str | None]]:
    return [_named(history, histories[1 - i]) for i, history in enumerate(histories)]


def _named(history: Sequence[Snapshot], other: Sequence[Snapshot]) -> dict[str | None, str | None]:
    """Names without the modules that all are under, where the two runs have none in common with them."""
    mine, theirs = _names(history), _names(other)
    if mine & theirs:
        return {}
    under = shared_path(mine)
    return {name: name[len(under) + 1 :] for name in mine} if under else {}


def _names(history: Sequence[Snapshot]) -> set[str]:
    last = history[-1]
    return {record.name for record in (*last.weighted, *last.activations, *last.parameters)}


def _layers(names: Iterable[str]) -> list[str]:
    """Without the parameters of those layers that are there."""
    known = set(names)
    return sorted(name for name in known if name.rpartition(".")[0] not in known)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]
