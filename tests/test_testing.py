"""assert_healthy fails with the table, gives the same answer twice, and lets pass what is accepted."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.diagnosis import Finding
from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.testing import Accepted, judged


def network(*end):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3), *end)


def loader():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 6, generator=generator)
    return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=32, shuffle=True)


def check(model, **options):
    options = {"num_batches": 4, "experiments": "none", **options}
    return lt.assert_healthy(model, loader(), nn.functional.cross_entropy, **options)


def test_a_healthy_model_passes_and_draws_nothing():
    model = network(nn.Dropout(0.1))
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    one, other = check(model), check(model)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    assert one.healthy
    assert [s.loss for s in one.history] == [s.loss for s in other.history]
    assert [s.loss for s in check(model, seed=1).history] != [s.loss for s in one.history]


def test_a_sick_one_fails_with_the_table():
    with pytest.raises(AssertionError) as caught:
        check(network(nn.Softmax(dim=1)))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("critical: output_mismatch")
    assert any("The layers at step 3" in line for line in lines)


def test_what_was_accepted_passes_and_nothing_else(tmp_path):
    file, sick = tmp_path / "new" / "accepted.json", network(nn.Softmax(dim=1))
    with pytest.raises(AssertionError, match="accept=True"):
        check(sick, accepted=file)
    assert not file.exists()
    check(sick, accepted=file, accept=True)
    assert [each["problem"] for each in json.loads(file.read_text())["accepted"]] == ["output_mismatch"]
    check(sick, accepted=file)
    sick[0].weight.data.fill_(0.1)
    with pytest.raises(AssertionError, match="symmetric_weights at 0"):
        check(sick, accepted=file)


def test_what_nobody_saw_is_no_health():
    frozen = network().requires_grad_(False)
    with pytest.raises(AssertionError):
        check(frozen, ignore=["no_update"])


def test_the_least_severity():
    warning, critical = (Finding("dead_units", "a", severity, 0) for severity in ("warning", "critical"))
    assert judged(Diagnosis([warning]))[0] == "sick"
    assert judged(Diagnosis([warning]), fail_on="critical")[1] == []
    assert judged(Diagnosis([warning, critical]), fail_on="critical")[1] == [critical]
    with pytest.raises(ValueError, match="did you mean 'critical'"):
        judged(Diagnosis(), fail_on="critcal")


def test_an_accepted_cause_covers_what_follows_but_not_what_is_worse():
    follows = Finding("vanishing_gradient", "b", "critical", 3)
    cause = Finding("saturation", "a", "warning", 0, consequences=(follows,))
    known = Accepted.of(Diagnosis([cause]))
    elsewhere = Finding("saturation", "a", "warning", 0, consequences=(Finding("linearity", "z", "warning", 2),))
    assert judged(Diagnosis([elsewhere]), known)[1] == []
    assert judged(Diagnosis([Finding("saturation", "a", "critical", 0)]), known)[0] == "sick"
    assert judged(Diagnosis([Finding("linearity", "c", "info", 0, consequences=(follows,))]), known)[1] == []
    assert known.gone(Diagnosis([elsewhere])) == ["vanishing_gradient at b"]


def test_other_files_are_refused(tmp_path):
    for text in ("{", "[]", '{"accepted": [{"problem": "x"}]}', '{"accepted": 3}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ValueError, match="no file of accepted findings"):
            Accepted.read(tmp_path / "a.json")
    with pytest.raises(ValueError, match="accepted="):
        check(network(), accept=True)
