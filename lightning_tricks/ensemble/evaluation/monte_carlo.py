"""Dropout as approximate bagging: many thinned networks that share their weights, and the one that stands for them."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_tricks._compat.torch_modules import DropoutNd
from lightning_tricks.ensemble.evaluation.prediction import Prediction, Task, predict_members
from lightning_tricks.model.arguments import check_count, check_module
from lightning_tricks.model.isolated import keep_training_flags
from lightning_tricks.nn.dropout import AlphaDropout


class MonteCarloDropout:
    """Predictions of randomly thinned networks, drawn by a trained model's own dropout layers.

    ``p(y | x) ~ 1/T sum_t p(y | x, mask_t)`` (Gal & Ghahramani 2016, "Dropout as a Bayesian approximation"). Only
    dropout layers (``nn.Dropout``, ``Dropout1d`` to ``3d``, ``AlphaDropout``, ``FeatureAlphaDropout``, this
    library's ``AlphaDropout``) are in training mode; batch norm and all others are in eval mode.

    Args:
        model: Any module that holds a dropout layer with p > 0; it stays as it is.
        num_samples: T.
        task: As of :class:`BaggingEnsemble`.
        batch_size: Patterns of one forward.

    Raises:
        ValueError: ``num_samples`` is under 1, or there is no dropout layer with p > 0.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    >>> MonteCarloDropout(model, num_samples=6).predict(torch.zeros(2, 4)).members.shape
    torch.Size([6, 2, 3])
    """

    def __init__(
        self, model: nn.Module, num_samples: int = 32, *, task: Task = "classification", batch_size: int = 1024
    ) -> None:
        check_module(model)
        check_count("num_samples", num_samples)
        self.model, self.num_samples, self.task, self.batch_size = model, num_samples, task, batch_size
        self.layers = [
            module for module in model.modules() if isinstance(module, (DropoutNd, AlphaDropout)) and module.p > 0
        ]
        if not self.layers:
            raise ValueError(
                f"{type(model).__name__} has no dropout layer with p > 0 (F.dropout and the dropout inside nn.LSTM or "
                "nn.MultiheadAttention do not count): all samples would be the same"
            )

    def predict(self, x: Any) -> Prediction:
        """``num_samples`` thinned networks; each batch of patterns gets masks of its own."""
        with keep_training_flags(self.model):
            self.model.eval()
            for layer in self.layers:
                layer.train()
            return Prediction(
                predict_members([self.model] * self.num_samples, x, self.task, self.batch_size), self.task
            )

    def weight_scaling(self, x: Any) -> Prediction:
        """The whole network with its weights scaled by the chance to be kept: one forward in eval mode.

        The weight-scaling rule (Hinton et al. 2012; Srivastava et al. 2014, section 4): exact for the normalised
        geometric mean of a single softmax layer's thinned networks, an approximation for deeper ones. torch's layers
        divide by the chance to be kept in training, so that eval mode is the scaled network.
        """
        with keep_training_flags(self.model):
            self.model.eval()
            return Prediction(predict_members([self.model], x, self.task, self.batch_size), self.task)
