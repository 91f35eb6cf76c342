import re
from pathlib import Path

import numpy as np
import pytest
import torch

import lightning_tricks
from lightning_tricks.report.words import evidence, number, rounded


@pytest.mark.parametrize("value", [3.14159e-12, 0.0012345, 0.99951, 9.996, 123.456, 98765.4, 1.5e7, -0.04567])
def test_a_number_keeps_three_significant_digits(value):
    assert float(number(value)) == pytest.approx(value, rel=6e-3)
    assert len(number(value).lstrip("-0.").replace(".", "").split("e")[0]) >= 3


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.float32(0.5), "0.500"),
        (np.int64(12), "12"),
        (torch.tensor(0.25), "0.250"),
        (np.bool_(True), "yes"),
        (float("inf"), "infinite"),
        (float("nan"), "unknown"),
        ([], ""),
        ({"first": 1e-9, "last": None}, "first 1.00e-09, last none"),
        (list(range(9)), "0, 1, 2, 3, 4, 5, and 3 more"),
        ("19 of 20", "19 of 20"),
    ],
)
def test_evidence_of_any_kind_can_be_read(value, shown):
    assert evidence({"the_value": value}) == [f"the value {shown}"]


def test_only_shares_are_percentages():
    assert evidence({"dead_share": 0.5, "saturation": 1.0, "share": 7.0, "share_2": -0.04, "linearity": 0.5}) == [
        "dead share 50.0 %",
        "saturation 100 %",
        "share 7.00",
        "share 2 -4.00 %",
        "linearity 0.500",
    ]


def test_a_loss_that_is_nan_is_nan_and_not_unknown():
    assert evidence({"loss": float("nan"), "first loss": np.float32("nan"), "std": float("nan")}) == [
        "loss NaN",
        "first loss NaN",
        "std unknown",
    ]


def test_a_zero_has_no_minus():
    assert [rounded(value, form) for value, form in ((-0.004, ".0%"), (-0.0, "+.0%"), (-1e-4, ".3f"))] == [
        "0%",
        "+0%",
        "0.000",
    ]
    assert [rounded(-0.006), rounded(float("nan")), rounded(float("-inf"))] == ["-1%", "nan%", "-inf%"]


@pytest.mark.parametrize("room", ["report", "comparison", "commands", "treatment", "experiments"])
def test_shares_that_may_be_under_zero_have_one_formatter(room):
    """Of experiments those that tell of trainings: shares of data are counts over counts."""
    files = Path(lightning_tricks.__file__).parent.joinpath(room)
    found = files.glob("*.py") if room == "experiments" else files.rglob("*.py")
    assert [path.name for path in found if re.search(r":\+?\.\d%\}", path.read_text(encoding="utf-8"))] == []
