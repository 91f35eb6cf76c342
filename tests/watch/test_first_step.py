"""The first step's call is run again once in a training, and the training goes on bit for bit as without."""

import copy

import pytest
import torch
from torch import nn

import lightning_tricks as lt
from lightning_tricks.experiments.preflight import replay
from lightning_tricks.watch.first_step import FirstStep
from tests.callbacks.trainings import Classifier, Gan, batches, cnn, fit, mlp, same, transformer
from tests.conftest import attached


class StatefulRecurrent(nn.Module):
    """Goes on where the batch before has ended."""

    def __init__(self):
        super().__init__()
        self.gru, self.head, self.state = nn.GRU(2, 8, batch_first=True), nn.Linear(8, 3), None

    def forward(self, x):
        output, state = self.gru(x.view(-1, 3, 2), self.state)
        self.state = state.detach()
        return self.head(output[:, -1])


class Noisy(nn.Module):
    """Draws from everywhere, counts its calls in a buffer, and normalises its weights in place."""

    def __init__(self):
        super().__init__()
        self.net, self.seen = mlp(), []
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        self.seen.append(len(x))
        return self.net(x + 0.1 * torch.randn_like(x))


class InForward(Classifier):
    """What is done in a forward that belongs to the training."""

    def forward(self, x):
        self.log("seen", float(len(x)))
        return self.net(x)

    def loss(self, batch):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


CASES = {
    "dropout": Classifier,
    "batch norm": lambda: Classifier(cnn()),
    "transformer": lambda: Classifier(transformer()),
    "state": lambda: Classifier(StatefulRecurrent()),
    "noise": lambda: Classifier(Noisy()),
    "logs in its forward": InForward,
    "by hand": Gan,
}


def train(make, preflight, **options):
    torch.manual_seed(0)
    module, doctor = make(), lt.TrainingDoctor(report=False, on_problem="log", preflight=preflight)
    trainer = fit(module, [doctor], batches(6), **options)
    optimizers = copy.deepcopy([optimizer.state_dict() for optimizer in trainer.optimizers])
    flags = [part.training for part in module.modules()]
    attributes = [sorted(vars(part)) for part in module.modules()]
    kept = module.losses, module.state_dict(), optimizers, torch.get_rng_state(), getattr(module.net, "seen", None)
    return (kept, flags, attributes), doctor


@pytest.mark.parametrize("in_place", [False, True], ids=["a copy", "in place"])
@pytest.mark.parametrize("case", CASES)
def test_same_bit_for_bit(case, in_place, monkeypatch):
    if in_place:
        monkeypatch.setattr(replay, "LARGEST_COPY", 0)
    before = attached()
    without, silent = train(CASES[case], preflight=False)
    with_it, doctor = train(CASES[case], preflight=True)
    assert same(without[0], with_it[0])
    assert without[1:] == with_it[1:]
    assert attached() == before
    assert silent.history[0].preflight is None
    assert "preflight" not in silent.history[0].not_seen
    first, *others = doctor.history
    assert (first.preflight is None) == ("preflight" in first.not_seen)
    assert all(each.preflight is None and "preflight" not in each.not_seen for each in others)


def test_what_it_finds():
    _, doctor = train(Classifier, preflight=True)
    record = doctor.history[0].preflight
    assert (record.module, record.patterns, record.mixing) == ("net", 8, 0.0)
    assert 0.0 < record.draw_correlation < 1.0  # dropout
    restored = lt.Snapshot.from_dict(doctor.history[0].to_dict()).preflight
    assert restored.to_dict() == record.to_dict()


def test_nothing_drawn_is_no_number():
    _, doctor = train(lambda: Classifier(nn.Linear(6, 3)), preflight=True)
    record = doctor.history[0].preflight
    assert record.draw_correlation != record.draw_correlation


def test_a_state_is_not_asked():
    _, doctor = train(CASES["state"], preflight=True)
    assert doctor.history[0].not_seen["preflight"] == "not asked: the same arguments give different outputs"


def test_a_forward_that_fails_the_second_time_is_listed():
    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            if not torch.is_grad_enabled():
                raise ZeroDivisionError("only in training")
            return self.net(x)

    _, doctor = train(lambda: Classifier(Once()), preflight=True)
    assert doctor.history[0].not_seen["preflight"].startswith("could not be run again: ZeroDivisionError")


def test_of_an_accumulation_the_first_batch():
    _, doctor = train(Classifier, preflight=True, accumulate_grad_batches=3)
    assert doctor.history[0].preflight.patterns == 8


def test_a_checkup_has_one():
    diagnosis = lt.checkup(mlp(), batches(2), nn.functional.cross_entropy)
    assert diagnosis.history[0].preflight.mixing == 0.0
    assert lt.checkup(Classifier(), batches(2)).history[0].preflight.module == "net"


def test_of_several_processes_none_does_it(monkeypatch):
    first_step, net = FirstStep(wanted=True), nn.Linear(6, 3)
    with lt.probe(net) as probe:
        first_step.begin(probe, batches(1)[0], None, 2)
        net(torch.randn(4, 6)).sum().backward()
    first_step.run(probe)
    snapshot = first_step.enter(probe.snapshot())
    assert snapshot.preflight is None
    assert snapshot.not_seen["preflight"] == "not asked: several processes train together"


def test_monitors_alone_ask_for_none():
    monitor = lt.ActivationMonitor()
    fit(Classifier(), [monitor], batches(2))
    assert monitor.history[0].preflight is None
