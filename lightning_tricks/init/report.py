"""What was done to which layer, and what was left alone and why: the record that initialisation and surgery fill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lightning_tricks._compat.messages import ShownAsText

__all__ = ["Entry", "NoEffectWarning", "Report"]


class NoEffectWarning(UserWarning):
    """A surgery or an initialisation found nothing to change."""


@dataclass(frozen=True)
class Entry:
    """One line of a report.

    Args:
        layer: The module's path in the model, ``""`` for the model itself.
        what: What was done to it, or why it was left alone.
        values: Numbers that belong to it, such as ``{"fan": 256, "std asked": 0.0625}``.
    """

    layer: str
    what: str
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Report(ShownAsText):
    """What a surgery or an initialisation changed in a model, and what it left alone.

    >>> report = Report()
    >>> report.change("net.0", "lecun_normal", {"fan": 256, "std asked": 0.0625})
    >>> report.leave("net.1", "no weights")
    >>> print(report)
    layer  changed       fan  std asked
    net.0  lecun_normal  256  0.0625
    <BLANKLINE>
    layer  left alone
    net.1  no weights
    """

    changed: list[Entry] = field(default_factory=list)
    left: list[Entry] = field(default_factory=list)

    def change(self, layer: str, what: str, values: Mapping[str, float] | None = None) -> None:
        """Records that ``layer`` was changed."""
        self.changed.append(Entry(layer, what, dict(values or {})))

    def leave(self, layer: str, why: str) -> None:
        """Records that ``layer`` was left alone."""
        self.left.append(Entry(layer, why))

    def __str__(self) -> str:
        parts = {"changed": self.changed, "left alone": self.left}
        tables = [_table(title, entries) for title, entries in parts.items() if entries]
        return "\n\n".join(tables) or "nothing changed, nothing left alone"


def _table(title: str, entries: list[Entry]) -> str:
    columns = list(dict.fromkeys(key for entry in entries for key in entry.values))
    rows = [["layer", title, *columns]]
    for entry in entries:
        values = [f"{entry.values[key]:.4g}" if key in entry.values else "" for key in columns]
        rows.append([entry.layer or "(model)", entry.what, *values])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
