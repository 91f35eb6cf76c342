"""Changes a network into another (torch only)."""

from lightning_tricks.surgery.activation import self_normalize, swap_activation
from lightning_tricks.surgery.replace import replace_modules
from lightning_tricks.surgery.report import Entry, NoEffectWarning, Report
