"""What a member logs and measures is caught, and the member is as it was afterwards."""

import pytest
import torch
from torchmetrics import MeanMetric

from lightning_tricks.ensemble.mapping.logged_values import LoggedValues, capture_logging, metrics_of
from tests.ensemble.training.test_member_logger import Measuring
from tests.ensemble.trainings import Smooth


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
