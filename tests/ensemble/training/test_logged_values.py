"""What members log and measure arrives as it does from separate fits, also out of a mapped step."""

import pytest
import torch
import torch.nn.functional as F
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lightning_tricks.ensemble.training.logged_values import LoggedValues, capture_logging, metrics_of
from tests.ensemble.test_bagging import Smooth
from tests.ensemble.trainings import fit, separate


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


def test_recording_leaves_the_member_as_it_was_also_after_an_error():
    member = Measuring()
    before = [dict(vars(module)) for module in member.modules()]
    with pytest.raises(RuntimeError, match="inside"), capture_logging(member, LoggedValues(), metrics_of(member)):
        raise RuntimeError("inside")
    for module, old in zip(member.modules(), before, strict=True):
        assert vars(module).keys() == old.keys()
        assert vars(module).get("update") is old.get("update")


def test_caught_metrics_do_not_run():
    member, logged = Measuring(), LoggedValues()
    with capture_logging(member, logged, metrics_of(member)):
        member.accuracy(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
        member.several.update(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
    assert [(path, method) for path, method, _, _ in logged.calls] == [("accuracy", "forward"), ("several", "update")]
    assert member.accuracy.update_count == 0


def test_a_metric_that_is_no_attribute():
    member = Smooth()
    with capture_logging(member, LoggedValues()), pytest.raises(ValueError, match="not an attribute of the member"):
        member.log("stray", MeanMetric())
