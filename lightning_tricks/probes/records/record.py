"""The base of the records of a step: a name, what is known beside, and measures that are plain numbers."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeVar, overload

import numpy as np

from lightning_tricks.stats import SquareSums

R = TypeVar("R", bound="StepRecord")
Monitor = Literal["activations", "gradients"]
_SUMS = ("sums", "signal")


class Measure:
    """A number of a record that follows from its sums, and how it is shown: a field of the record of type float.

    Args:
        function: From the record's ``sums``, or from its ``signal`` if its parameter has that name, to the number.
        heading: Of its column in the table; empty if it has none.
        width: Of that column.
        format: How the table writes it: ``"number"``, ``"power"`` (of ten), ``"factor"``, or a format specification.
        meaning: What it is, in a line for the table's legend.
        reading: How a value is to be read: what is usual, from where on it is a fault.
        needed: The column with the smallest number is the first that a narrow terminal does without.
        counted: Whether it counts what lies above or below a bound, so that NaN among the patterns makes it worthless.
        monitor: Which monitor logs it: that of the activations, or that of the gradients.
    """

    def __init__(
        self,
        function: Callable[[Any], float],
        heading: str = "",
        width: int = 0,
        format: str = "number",
        meaning: str = "",
        needed: int = 0,
        counted: bool = False,
        monitor: Monitor | None = None,
        reading: str = "",
    ) -> None:
        self.function, self.source = function, next(iter(inspect.signature(function).parameters))
        self.heading, self.width, self.format, self.meaning = heading, width, format, meaning
        self.needed, self.counted, self.monitor, self.reading = needed, counted, monitor, reading
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, record: None, kind: type) -> Measure: ...

    @overload
    def __get__(self, record: object, kind: type) -> float: ...

    def __get__(self, record: object, kind: type) -> Any:
        return self  # for the type checker: the class that it stands in makes a field of it


def measure(
    heading: str = "",
    width: int = 0,
    format: str = "number",
    meaning: str = "",
    *,
    needed: int = 0,
    counted: bool = False,
    monitor: Monitor | None = None,
    reading: str = "",
) -> Callable[[Callable[[Any], float]], Measure]:
    """Makes a static method of a record's class a measure, for the arguments see :class:`Measure`.

    That is all that a new measure needs: it is computed, merged, stored, restored, written to the CSV file, shown in
    the table if it has a heading, and logged if it has a monitor.
    """
    return lambda function: Measure(function, heading, width, format, meaning, needed, counted, monitor, reading)


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """The base of all records: a name and its measures; NaN where a measure does not apply."""

    MEASURES: ClassVar[dict[str, Measure]] = {}

    name: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Every measure becomes a field, where it stands, before the dataclass is made."""
        super().__init_subclass__(**kwargs)
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Measure)}
        cls.MEASURES = {**cls.MEASURES, **own}
        annotated = inspect.get_annotations(cls)
        fields = {name: "float" if name in own else annotated.get(name) for name in {**vars(cls), **annotated}}
        cls.__annotations__ = {name: kind for name, kind in fields.items() if kind is not None}
        for name in own:
            setattr(cls, name, math.nan)

    @classmethod
    def measured(cls, **sources: Any) -> dict[str, Any]:
        """All measures by name, from the record's sums; NaN where there are none of the kind."""
        found: dict[str, Any] = {}
        for name, m in cls.MEASURES.items():
            source = sources.get(m.source)
            found[name] = math.nan if source is None else m.function(source)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON without the sums; a measure that is no finite number becomes None."""
        return {f.name: to_json(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name not in _SUMS}

    @classmethod
    @functools.cache
    def _kinds(cls) -> dict[str, Any]:
        return {f.name: f.type for f in dataclasses.fields(cls)}

    @classmethod
    def from_dict(cls: type[R], values: dict[str, Any]) -> R:
        """The record that ``to_dict`` wrote, in this version or another: what is unknown here is left out."""
        kinds: dict[str, Any] = cls._kinds()
        restored: dict[str, Any] = {}
        for key in values.keys() & kinds.keys():
            value = values[key]
            if value is None and kinds[key] == "float":
                value = math.nan
            restored[key] = _tuples(value) if isinstance(value, list) else value
        return cls(**restored)

    def measures(self) -> dict[str, float]:
        """All that are single numbers, by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.type == "float"}

    def logged(self, monitor: Monitor) -> dict[str, float]:
        """The measures that a monitor logs, by name."""
        return {name: getattr(self, name) for name, m in self.MEASURES.items() if m.monitor == monitor}

    def with_values(self: R, **values: Any) -> R:
        """The record with other values of its fields, measures among them."""
        return dataclasses.replace(self, **values)

    def light(self: R) -> R:
        """The record without its sums per unit: what a long history keeps, and several histories share."""
        return self._light

    @functools.cached_property
    def _light(self: R) -> R:
        light = object.__new__(type(self))  # a history makes thousands: as a frozen dataclass makes itself, but at once
        vars(light).update(vars(self))
        vars(light).update((name, None) for name in _SUMS if name in vars(self))
        return light


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def to_json(value: Any) -> Any:
    """Numbers, words, lists and mappings as JSON knows them: NumPy's and torch's numbers too; NaN and Inf become None.

    >>> to_json({"shares": (0.5, float("nan")), "units": np.int64(3)})
    {'shares': [0.5, None], 'units': 3}
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item) for item in value]
    return to_json(value.tolist()) if hasattr(value, "tolist") else str(value)


def merged(one: SquareSums | None, other: SquareSums | None) -> SquareSums | None:
    """The sums of two error signals, of which either may not be known."""
    return other if one is None else one if other is None else one.merge(other)


def mean(values: Any, *, skip_nan: bool = False) -> float:
    """Over units; NaN where there is none."""
    if values is None:
        return math.nan
    values = np.asarray(values, np.float64)
    if skip_nan:
        values = values[~np.isnan(values)]
    return float(np.add.reduce(values, axis=None)) / values.size if values.size else math.nan


def root(value: float) -> float:
    return math.sqrt(value) if value >= 0 else math.nan
