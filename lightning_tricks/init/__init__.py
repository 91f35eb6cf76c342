"""How a network's weights begin (torch only)."""

from lightning_tricks.init.report import Entry, NoEffectWarning, Report
