"""The first step whose loss is NaN is run again without a trace, and its line is named."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lightning_tricks as lt
from tests.callbacks.trainings import Classifier, batches, cnn, fit, monitors, same


class Breaks(Classifier):
    """One loss is NaN; the gradients of that step are thrown away, so that the training goes on."""

    def __init__(self, at, value=lambda loss: (0.0 * loss).log()):
        super().__init__(cnn())
        self.at, self.value, self.saved, self.runs = at, value, True, []

    def training_step(self, batch, batch_idx):
        self.runs.append(batch_idx)
        loss = super().training_step(batch, batch_idx)
        random.random(), np.random.rand()
        return loss + self.value(loss) if batch_idx == self.at else loss

    def on_before_optimizer_step(self, optimizer):
        for parameter in self.parameters() if self.saved else ():
            parameter.grad = torch.nan_to_num(parameter.grad, 0.0)


def train(module, callbacks, **options):
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    fit(module, callbacks, batches(7), **options)
    streams = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    losses = [loss.nan_to_num(-1.0) for loss in module.losses]
    return losses, module.state_dict(), module.runs, [m.training for m in module.modules()], *streams


def made(*arguments):
    torch.manual_seed(0)
    return Breaks(*arguments)


@pytest.mark.parametrize("at", [2, 3], ids=["looked at", "between two looks"])
def test_a_training_with_a_nan_is_the_same_bit_for_bit(at):
    looking = monitors(every_n_steps=50)
    assert same(train(made(at), []), train(made(at), looking))


@pytest.mark.parametrize("at", [2, 3], ids=["looked at", "between two looks"])
def test_the_line_is_named(at):
    doctor, module = lt.TrainingDoctor(every_n_steps=50, on_problem="log", report=False), made(at)
    module.saved = False
    fit(module, [doctor], batches(7))
    (finding,) = (f for f in doctor.diagnosis.findings if f.problem == "non_finite")
    assert finding.evidence["operation"] == "log"
    assert finding.evidence["line"].startswith("test_repeated_step.py:")
    assert "(0.0 * loss).log()" in finding.remedies[0].text
    stored = lt.diagnose([type(s).from_dict(s.to_dict()) for s in doctor.history])
    assert stored.findings[0].evidence["line"] == finding.evidence["line"]


def test_so_is_that_of_a_gradient():
    doctor = lt.TrainingDoctor(every_n_steps=50, on_problem="log", report=False)
    module = made(2, lambda loss: (loss - loss).sqrt())
    module.saved = False
    fit(module, [doctor], batches(7))
    (finding,) = (f for f in doctor.diagnosis.findings if f.problem == "non_finite")
    assert finding.evidence["operation"] == "sqrt (backward)"


def test_a_step_that_cannot_be_run_alone_is_left_alone():
    class Asks(Breaks):
        def training_step(self, batch, batch_idx):
            assert self.trainer.global_step >= 0
            return super().training_step(batch, batch_idx)

    torch.manual_seed(0)
    doctor, module = lt.TrainingDoctor(every_n_steps=50, on_problem="log", report=False), Asks(2)
    fit(module, [doctor], batches(7))
    assert len(module.losses) == 7
    assert not doctor.errors.failed
    assert "line" not in doctor.diagnosis.findings[0].evidence


def test_a_checkup_of_a_plain_network_names_it_too():
    torch.manual_seed(0)
    data = torch.randn(32, 6), torch.randint(3, (32,))
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    first, *_ = lt.checkup(network, data, lambda o, y: F.cross_entropy(o, y) + (0 * o).sum().log()).findings
    assert (first.problem, first.evidence["operation"]) == ("non_finite", "log")


class Changes(Breaks):
    """A step that writes into its batch, which the backward pass still needs."""

    def training_step(self, batch, batch_idx):
        batch[0].mul_(1.5)
        return super().training_step(batch, batch_idx)


def test_a_batch_that_the_step_changes_is_changed_once():
    def trained(callbacks):
        torch.manual_seed(0)
        module, data = Changes(2), batches(4)
        fit(module, callbacks, data)
        return [x for x, _ in data], module.state_dict()

    assert same(trained([]), trained(monitors(every_n_steps=50)))


def test_no_batch_is_kept_longer_than_its_step():
    module, doctor = Classifier(), lt.TrainingDoctor(every_n_steps=50, report=False)
    seen = []

    class Last(lt.ActivationMonitor):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            seen.append(doctor._shared_probe.repeated_step._given)

    fit(module, [doctor, Last()], batches(3))
    assert seen == [None, None, None]
