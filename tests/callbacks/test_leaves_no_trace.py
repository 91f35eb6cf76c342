"""After a fit, however it ends, nothing of a monitor is left; and the next fit works."""

import copy
import pickle

import pytest
import torch

import lightning_tricks as lt
from tests.callbacks.trainings import Classifier, Gan, batches, fit, lbfgs, monitors
from tests.conftest import attached


class Interrupted(Classifier):
    def __init__(self, error=None, **arguments):
        super().__init__(**arguments)
        self.error = error

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if batch_idx == 2:
            if self.error is not None:
                raise self.error("half-way")
            self.trainer.should_stop = True
        return loss


def hooks(module, trainer):
    """Everything that may hang on a module, its parameters and its optimisers."""
    found = []
    for part in module.modules():
        found += [part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks]
        found += [parameter._backward_hooks for parameter in part.parameters()]
        found += [parameter._post_accumulate_grad_hooks for parameter in part.parameters()]
    for optimizer in trainer.optimizers:
        found += [optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]
    return [hook for hook in found if hook]


@pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")
@pytest.mark.parametrize("way", ["to its end", "should_stop", "exception", "interrupt"])
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 4}], ids=["plain", "accumulated"])
def test_fit_ends(way, options, capsys, monkeypatch):
    error = {"exception": ZeroDivisionError, "interrupt": KeyboardInterrupt}.get(way)
    module = Classifier() if way == "to its end" else Interrupted(error)
    looking, before, caught = monitors(), attached(), None
    module.net[3].eval()
    flags, keys = [part.training for part in module.modules()], list(module.state_dict())
    trainers = []
    monkeypatch.setattr(lt.TrainingDoctor, "on_fit_start", _remember(trainers))
    try:
        fit(module, looking, **options)
    except (ZeroDivisionError, SystemExit) as stopped:
        caught = stopped
    assert (caught is None) == (error is None)
    assert attached() == before
    assert not hooks(module, trainers[0])
    assert [part.training for part in module.modules()] == flags
    assert list(module.state_dict()) == keys
    assert torch._dynamo.eval_frame._stance.stance == "default"
    for monitor in looking:
        assert monitor._shared_probe is None
        for twin in (pickle.loads(pickle.dumps(monitor)), copy.deepcopy(monitor)):
            assert [s.to_dict() for s in twin.history] == [s.to_dict() for s in monitor.history]
            assert twin.own_state() == monitor.own_state()
    pickle.dumps(module)
    copy.deepcopy(module)
    shown = len(looking[0].history) > 0
    assert capsys.readouterr().out.count("Healthy so far") == (1 if shown else 0)  # the verdict, once
    assert shown or "accumulate_grad_batches" in options


def _remember(trainers):
    real = lt.TrainingDoctor.on_fit_start

    def on_fit_start(monitor, trainer, pl_module):
        trainers.append(trainer)
        real(monitor, trainer, pl_module)

    return on_fit_start


@pytest.mark.parametrize("make", [Gan, lambda: Classifier(optimizer=lbfgs)], ids=["gan", "lbfgs"])
def test_optimisers_are_free_again(make):
    module = make()
    trainer = fit(module, monitors())
    assert not hooks(module, trainer)


def test_nothing_is_attached_between_probed_steps():
    class Recording(Classifier):
        def training_step(self, batch, batch_idx):
            states.append(attached())
            return super().training_step(batch, batch_idx)

    states, before = [], attached()
    monitor = lt.ActivationMonitor(every_n_steps=4)
    fit(Recording(), [monitor], batches(8))
    assert [step for step, state in enumerate(states) if state != before] == [0, 1, 2, 4]


def test_same_monitors_in_a_second_training():
    looking, module = monitors(), Classifier()
    trainer = fit(module, looking, max_epochs=1)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, torch.utils.data.DataLoader(batches(), batch_size=None))  # the same training, continued
    assert [snapshot.step for snapshot in looking[0].history] == list(range(12))
    fit(module, looking, batches(3))  # another one
    for monitor in looking:
        assert [snapshot.step for snapshot in monitor.history] == [0, 1, 2]
    fresh = monitors()
    fit(Classifier(), fresh, batches(3))
    assert [snapshot.step for snapshot in fresh[0].history] == [0, 1, 2]


def test_a_training_that_never_starts_shows_nothing(capsys):
    looking = monitors()
    fit(Classifier(), looking, batches(3))
    capsys.readouterr()

    class Fails(Classifier):
        def on_train_start(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(Fails(), looking)
    assert capsys.readouterr().out == ""  # not the table of the training before


def test_the_users_exception_survives_a_broken_report(monkeypatch):
    def broken(diagnosis):
        raise RuntimeError("my fault")

    monkeypatch.setattr(lt.Diagnosis, "show", broken)
    with pytest.warns(UserWarning, match="my fault"), pytest.raises(ZeroDivisionError, match="half-way"):
        fit(Interrupted(ZeroDivisionError), monitors())


def test_validate_test_and_predict_are_left_alone():
    class All(Classifier):
        def validation_step(self, batch, batch_idx):
            self.loss(batch)

        test_step = validation_step

        def predict_step(self, batch, batch_idx):
            return self.net(batch[0])

    looking = monitors()
    trainer = fit(All(), looking, batches(2))
    loader = torch.utils.data.DataLoader(batches(2), batch_size=None)
    for method in (trainer.validate, trainer.test, trainer.predict):
        method(All(), loader)
    assert len(looking[0].history) == 2
