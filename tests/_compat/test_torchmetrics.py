"""The value of a metric's last batch, and trainings with metrics that do not keep it."""

import pytest
import torch
import torch.nn.functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from lightning_tricks._compat import lightning as _lightning
from lightning_tricks._compat.torchmetrics import last_value
from tests.ensemble.trainings import Plain, fit


class Forgetful(MulticlassAccuracy):
    def forward(self, *args, **kwargs):
        value = super().forward(*args, **kwargs)
        del self.__dict__["_forward_cache"]
        return value


class Measuring(Plain):
    def __init__(self, metric=Forgetful):
        super().__init__()
        self.accuracy = metric(3, average="micro")

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.accuracy(logits, y)
        self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)
        return F.cross_entropy(logits, y)


def test_of_the_last_batch_alone():
    metric = MeanMetric()
    assert last_value(metric) is None
    metric(torch.tensor(1.0))
    metric(torch.tensor(3.0))
    assert float(last_value(metric)) == 3.0


@pytest.mark.parametrize("backend", ["vmap", "loop"])
def test_without_it_the_epochs_value_is_logged(monkeypatch, backend):
    monkeypatch.setattr(_lightning, "_said", type(_lightning._said)())
    _, expected = fit(lambda: Measuring(MulticlassAccuracy), backend)
    with pytest.warns(UserWarning, match="end of the epoch only") as said:
        _, run = fit(Measuring, backend)
    assert len([one for one in said if "end of the epoch only" in str(one.message)]) == 1
    assert "accuracy_step" in expected.callback_metrics
    assert "accuracy_step" not in run.callback_metrics
    assert float(run.callback_metrics["accuracy_epoch"]) == float(expected.callback_metrics["accuracy_epoch"])
