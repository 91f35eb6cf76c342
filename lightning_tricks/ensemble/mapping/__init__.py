"""All members of an ensemble in one call, proven equal to a loop over them."""

from lightning_tricks.ensemble.mapping.backend import BackendBenchmark
from lightning_tricks.ensemble.mapping.batched import BatchedLayers
from lightning_tricks.ensemble.mapping.stack import Stack
from lightning_tricks.ensemble.mapping.steps import looped_losses, mapped_losses

__all__ = ["BackendBenchmark", "BatchedLayers", "Stack", "looped_losses", "mapped_losses"]
