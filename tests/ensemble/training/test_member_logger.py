"""What members log arrives as it does from separate fits, also out of a mapped step."""

import pytest
import torch.nn.functional as F
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from tests.ensemble.trainings import Smooth, fit, separate


class Measuring(Smooth):
    def __init__(self):
        super().__init__()
        self.accuracy = MulticlassAccuracy(3, average="micro")
        self.f1 = MulticlassF1Score(3)
        self.mean = MeanMetric()
        self.several = MetricCollection({"a": MulticlassAccuracy(3), "b": MulticlassAccuracy(3, average="micro")})

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        loss = F.cross_entropy(logits, y)
        self.log("of_batch", self.accuracy(logits, y))
        self.f1(logits, y)
        self.log("both", self.f1, on_step=True, on_epoch=True)
        self.mean.update(loss)
        self.log("mean_loss", self.mean, on_step=False, on_epoch=True)
        self.several.update(logits, target=y)
        self.log_dict(self.several, on_step=False, on_epoch=True)
        self.log("on_both", loss, True, on_step=True, on_epoch=True)
        return loss


@pytest.mark.parametrize("backend", ["vmap", "loop"])
def test_metrics(backend):
    ensemble, run = fit(Measuring, backend, max_epochs=3)
    members, runs = separate(Measuring, max_epochs=3)
    assert ensemble.used_backend == backend
    for name in runs[0].callback_metrics:
        mean = sum(float(one.callback_metrics[name]) for one in runs) / 3
        assert float(run.callback_metrics[name]) == pytest.approx(mean, abs=1e-6), name
    # what is not logged as an object gathers over the whole training
    for member, other in zip(ensemble.networks, members, strict=True):
        assert float(member.accuracy.compute()) == pytest.approx(float(other.accuracy.compute()))


def test_logging_per_member():
    _, run = fit(Smooth, "vmap", bagging={"log_members": True})
    values = [float(run.callback_metrics[f"loss/member_{k}"]) for k in range(3)]
    assert sum(values) / 3 == pytest.approx(float(run.callback_metrics["loss"]))
    assert len(set(values)) == 3
