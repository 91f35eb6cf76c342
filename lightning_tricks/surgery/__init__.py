"""Changes a network into another (torch only)."""

from lightning_tricks.init.report import Entry, NoEffectWarning, Report
from lightning_tricks.surgery.activation import self_normalize, swap_activation
from lightning_tricks.surgery.batch_norm.convert import convert_batch_norm
from lightning_tricks.surgery.batch_norm.fold import fold_batch_norm
from lightning_tricks.surgery.batch_norm.insert import insert_batch_norm
from lightning_tricks.surgery.batch_norm.population import tracked_batch_norms, update_population_statistics
from lightning_tricks.surgery.replace import replace_modules
from lightning_tricks.surgery.widen import widen_for_dropout

__all__ = [
    "Entry",
    "NoEffectWarning",
    "Report",
    "self_normalize",
    "swap_activation",
    "convert_batch_norm",
    "fold_batch_norm",
    "insert_batch_norm",
    "tracked_batch_norms",
    "update_population_statistics",
    "replace_modules",
    "widen_for_dropout",
]
