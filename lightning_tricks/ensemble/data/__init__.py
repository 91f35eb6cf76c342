"""Who is trained on what: bootstrap sets, and batches in which each member finds its own patterns."""

from lightning_tricks.ensemble.data.bootstrap import Bootstrap
from lightning_tricks.ensemble.data.data_module import BootstrapDataModule
from lightning_tricks.ensemble.data.loader import MemberBatches, MemberLoader, MemberOrder

__all__ = ["Bootstrap", "BootstrapDataModule", "MemberOrder", "MemberLoader", "MemberBatches"]
