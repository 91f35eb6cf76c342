"""Surgery's report is the one that initialisation fills: one record of a change that uses both."""

import torch
from torch import nn

from lightning_tricks import surgery


def test_one_report_holds_surgery_and_initialisation():
    torch.manual_seed(0)
    report = surgery.Report()
    surgery.self_normalize(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4)), report=report)
    assert [(entry.layer, entry.what) for entry in report.changed] == [
        ("1", "ReLU -> SELU"),
        ("0", "lecun_normal (selu)"),
    ]
    assert [entry.layer for entry in report.left] == ["2"]
    assert "ReLU -> SELU" in str(report)
