"""Two runs side by side: the first layer and step at which they part."""

from lightning_tricks.comparison.comparison import Comparison, compare
from lightning_tricks.comparison.histories import history_of
from lightning_tricks.comparison.parting import Parting

__all__ = ["Comparison", "Parting", "compare", "history_of"]
