"""Treatment: cures that are proven on copies and then made in the model."""

from lightning_tricks.treatment.treat import treat
from lightning_tricks.treatment.treatment import Proven, Treatment

__all__ = ["Proven", "Treatment", "treat"]
