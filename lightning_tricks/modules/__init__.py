"""LightningModules to subclass: any network, with loss, metrics, optimiser and the statistics of its data."""

from lightning_tricks.modules.classifier import Classifier
from lightning_tricks.modules.regressor import Regressor

__all__ = ["Classifier", "Regressor"]
