"""One training as a whole, that can be copied and gone on with while the user's own stands still."""

from lightning_tricks.experiments.training.training import Training

__all__ = ["Training"]
