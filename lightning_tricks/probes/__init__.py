"""Reads one step of any model: forward, backward, update (torch only)."""

from lightning_tricks.probes.probe import Probe, probe
from lightning_tricks.probes.records.activations import ActivationRecord
from lightning_tricks.probes.records.loss_and_norm import LossRecord, NormalizationRecord
from lightning_tricks.probes.records.parameters import ParameterRecord
from lightning_tricks.probes.records.training import LooseWeight, TrainingRecord
from lightning_tricks.probes.records.validation import ChannelMoments, ValidationRecord
from lightning_tricks.probes.records.weighted import WeightedRecord
from lightning_tricks.probes.snapshot import Snapshot

__all__ = [
    "ActivationRecord",
    "ChannelMoments",
    "LooseWeight",
    "LossRecord",
    "NormalizationRecord",
    "ParameterRecord",
    "Probe",
    "Snapshot",
    "TrainingRecord",
    "ValidationRecord",
    "WeightedRecord",
    "probe",
]
