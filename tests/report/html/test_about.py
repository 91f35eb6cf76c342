"""The settings: how the loss was called, as far as its record knows it."""

import dataclasses
import math
import re

import pytest

from lightning_tricks.report import Diagnosis
from lightning_tricks.report.html import about


def settings(history, **changed):
    """The rows of the table, by name, of a training whose losses were called otherwise."""
    history = [dataclasses.replace(s, losses=[dataclasses.replace(r, **changed) for r in s.losses]) for s in history]
    table = about.settings(Diagnosis([], history))[0]
    return dict(re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', table))


@pytest.mark.parametrize(
    ("changed", "loss"),
    [
        ({}, "cross_entropy"),
        ({"arguments": "ignore_index=0, label_smoothing=0.1"}, "cross_entropy(ignore_index=0, label_smoothing=0.1)"),
        ({"smoothing": 0.1, "reduction": "sum"}, "cross_entropy(label_smoothing=0.1, reduction='sum')"),  # an old one
        ({"smoothing": math.nan, "reduction": ""}, "cross_entropy"),  # a very old one
    ],
)
def test_the_loss_as_it_was_called(rectifiers, changed, loss):
    assert settings(rectifiers, **changed)["loss"] == loss


def test_what_the_classes_weigh(rectifiers):
    assert "weights of the classes" not in settings(rectifiers)
    shown = settings(rectifiers, class_weights=(0.5, 2.0, 1.0, 1.0))
    assert shown["weights of the classes"] == "0.500 to 2.00"
    either = settings(rectifiers, class_weights=(1.0, 3.0), function="binary_cross_entropy_with_logits")
    assert either["weights of the classes"] == "no 1.00, yes 3.00"
    assert "weights of the classes" not in settings(rectifiers, class_weights=(math.nan, 2.0))
