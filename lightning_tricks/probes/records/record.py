"""The base of the records of a step: a name and measures that are plain numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeVar

R = TypeVar("R", bound="Record")


@dataclasses.dataclass(frozen=True)
class Record:
    """The base of all records: a name and its measures; NaN where a measure does not apply."""

    name: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON without the sums; a measure that is no finite number becomes None."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name not in _SUMS}

    @classmethod
    def from_dict(cls: type[R], values: dict[str, Any]) -> R:
        numbers = {f.name for f in dataclasses.fields(cls) if f.type == "float"}
        restored: dict[str, Any] = {}
        for key, value in values.items():
            missing = value is None and key in numbers
            restored[key] = math.nan if missing else tuple(value) if isinstance(value, list) else value
        return cls(**restored)

    def measures(self) -> dict[str, float]:
        """The measures that are single numbers, by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.type == "float"}

    def light(self: R) -> R:
        """The record without its sums per unit: what a long history keeps."""
        dropped: dict[str, Any] = {f.name: None for f in dataclasses.fields(self) if f.name in _SUMS}
        return dataclasses.replace(self, **dropped)


_SUMS = ("sums", "signal")


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
