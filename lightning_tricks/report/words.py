"""Names and numbers as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from lightning_tricks.diagnosis.diagnosis import called

_SHARES = ("share", "saturation", "activity")
_MOST_ITEMS = 6


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits; scientific outside of 0.001 to 99999.

    >>> [number(v) for v in (0.73346, 12.0, 4567.8, 4.5e-5, 0.0, float("nan"), float("-inf"))]
    ['0.733', '12.0', '4568', '4.50e-05', '0', 'unknown', '-infinite']
    """
    value = float(value)
    if math.isnan(value):
        return "unknown"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 99999.5:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def rounded(value: float, form: str = ".0%") -> str:
    """A number as ``format`` writes it, a share in whole percent, but a zero without a minus.

    >>> [rounded(value) for value in (-0.001, 0.614)], rounded(-0.004, "+.2f")
    (['0%', '61%'], '+0.00')
    """
    text = format(value, form)
    rounded_away = math.isfinite(value) and not any(digit in text for digit in "123456789")
    return format(0.0, form) if rounded_away else text


def percent(value: float) -> str:
    """A share in percent.

    >>> percent(0.125), percent(0.0004), percent(1.0)
    ('12.5 %', '0.0400 %', '100 %')
    """
    return f"{number(100 * value)} %" if math.isfinite(value) else number(value)


def words(name: Any) -> str:
    """A name of the code in words.

    >>> words("update_ratio")
    'update ratio'
    """
    return str(name).replace("_", " ")


def evidence(items: Mapping[str, Any]) -> list[str]:
    """The measured numbers as "name value", without those that are None.

    >>> evidence({"pre-activation std": 0.29134, "saturation": 0.5, "weighted layer": "net.0", "loss": None})
    ['pre-activation std 0.291', 'saturation 50.0 %', 'weighted layer net.0']
    >>> evidence({"smallest transmission at": "3"})
    ['smallest transmission at layer 3']
    """
    return [f"{words(key)} {_value(str(key), value)}" for key, value in items.items() if value is not None]


def _value(key: str, value: Any) -> str:
    if hasattr(value, "tolist"):  # NumPy and torch
        value = value.tolist()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return str(value)
    if isinstance(value, Real):
        size = float(value)
        if math.isnan(size) and "loss" in key:
            return "NaN"  # a loss was seen, and this is what it was; another measure that is NaN was not taken
        share = any(word in key for word in _SHARES) and abs(size) <= 1
        return percent(size) if share else number(size)
    if isinstance(value, Mapping):
        return _joined([f"{words(k)} {_value(str(k), v)}" for k, v in value.items()])
    if isinstance(value, (list, tuple, set, frozenset)):
        return _joined([_value(key, item) for item in value])
    if isinstance(value, str) and key.endswith(" at"):
        return called(value)  # a layer whose name is a digit is no number
    return "none" if value is None else str(value)


def _joined(items: list[str]) -> str:
    left_out = len(items) - _MOST_ITEMS
    return ", ".join(items if left_out <= 0 else [*items[:_MOST_ITEMS], f"and {left_out} more"])
