"""The classes that a user adds to a Trainer, one file each."""

from lightning_tricks.callbacks.activation_monitor import ActivationMonitor
from lightning_tricks.callbacks.batch_augmentation import BatchAugmentation
from lightning_tricks.callbacks.gradient_flow_monitor import GradientFlowMonitor
from lightning_tricks.callbacks.initialize_weights import InitializeWeights
from lightning_tricks.callbacks.monitoring.monitor import Monitor
from lightning_tricks.callbacks.precise_batch_norm import PreciseBatchNorm
from lightning_tricks.callbacks.training_doctor import TrainingDoctor, TrainingProblemError
from lightning_tricks.callbacks.transformers_doctor import TransformersDoctor

__all__ = [
    "ActivationMonitor",
    "BatchAugmentation",
    "GradientFlowMonitor",
    "InitializeWeights",
    "Monitor",
    "PreciseBatchNorm",
    "TrainingDoctor",
    "TrainingProblemError",
    "TransformersDoctor",
]
