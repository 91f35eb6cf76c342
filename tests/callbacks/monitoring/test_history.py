"""A history survives a checkpoint, and a long one is thinned."""

import pathlib

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import lightning_tricks as lt
from lightning_tricks.callbacks.monitoring import history
from tests.callbacks.trainings import Classifier, batches, fit, monitors

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")


def steps(snapshots):
    return [snapshot.step for snapshot in snapshots]


class Resumable(torch.utils.data.DataLoader):
    """Goes on where it was, so that a resumed epoch sees the batches that are left."""

    def __init__(self, data):
        super().__init__(data, batch_size=None)
        self.at = 0

    def __iter__(self):
        start, self.at = self.at, 0
        for index, batch in enumerate(self.dataset[start:], start):
            self.at = index + 1
            yield batch
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


def train(callbacks, epochs, ckpt_path=None, make=Classifier, **options):
    torch.manual_seed(0)
    module = make(torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3)))
    return fit(module, callbacks, Resumable(batches(6)), max_epochs=epochs, ckpt_path=ckpt_path, **options)


@pytest.fixture
def loaders(monkeypatch):
    """Hand the loader itself to the Trainer."""
    from tests.callbacks import trainings

    monkeypatch.setattr(trainings, "Loader", lambda data: data)


@pytest.mark.parametrize("where", ["end of an epoch", "amid an epoch"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_history_is_that_of_an_uninterrupted_training(where, accumulate, loaders):
    options = {"accumulate_grad_batches": accumulate}
    whole, first, second = (monitors(every_n_steps=2) for _ in range(3))
    train(whole, 3, **options)
    if where == "end of an epoch":
        saving = ModelCheckpoint("saved", save_on_train_epoch_end=True)
        train([saving, *first], 1, enable_checkpointing=True, **options)
    else:
        saving = ModelCheckpoint("saved", every_n_train_steps=5 // accumulate, save_on_train_epoch_end=False)
        train([saving, *first], 1, enable_checkpointing=True, max_steps=5 // accumulate, **options)
    path = saving.best_model_path
    assert torch.load(path, weights_only=True)["callbacks"]
    train([saving, *second], 3, path, enable_checkpointing=True, **options)
    for one, other in zip(whole, second, strict=True):
        assert steps(other.history) == steps(one.history)
        assert other.state_dict() == one.state_dict()
    assert whole[2].diagnosis.to_dict()["findings"] == second[2].diagnosis.to_dict()["findings"]


def test_checkpoint_after_an_exception_is_plain_data(tmp_path):
    saving = ModelCheckpoint("saved", every_n_train_steps=1, save_top_k=-1)
    doctor = lt.TrainingDoctor(every_n_steps=1, on_problem="log")
    data = batches(4)
    data[2][0][0, 0] = float("inf")
    fit(Classifier(), [doctor, saving], data, enable_checkpointing=True)
    for path in pathlib.Path("saved").glob("*.ckpt"):
        state = torch.load(path, weights_only=True)["callbacks"][doctor.state_key]
        assert set(state) == {"history", "curve", "told"}
        assert _builtin(state)
    restored = lt.TrainingDoctor(every_n_steps=1, on_problem="log")
    restored.load_state_dict(doctor.state_dict())
    assert restored.state_dict() == doctor.state_dict()
    ours, theirs = restored.diagnosis.findings[0], doctor.diagnosis.findings[0]
    assert (ours.problem, ours.layer, ours.step) == (theirs.problem, theirs.layer, theirs.step)
    assert ours.problem == "non_finite"


def _builtin(value):
    if isinstance(value, dict):
        return all(type(key) is str and _builtin(item) for key, item in value.items())
    return all(map(_builtin, value)) if type(value) is list else type(value) in (int, float, bool, str, type(None))


def test_state_keys_tell_monitors_apart(tmp_path):
    variants = [
        lt.ActivationMonitor(), lt.ActivationMonitor(layers="a.*"), lt.ActivationMonitor(every_n_steps=3),
        lt.ActivationMonitor(max_patterns=7), lt.GradientFlowMonitor(), lt.TrainingDoctor(),
        lt.TrainingDoctor(on_problem="stop"), lt.TrainingDoctor(ignore=("bias_shift",)),
        lt.TrainingDoctor(layers="a.*"),
    ]  # fmt: skip
    assert len({monitor.state_key for monitor in variants}) == len(variants)
    first, second = lt.ActivationMonitor(every_n_steps=1), lt.ActivationMonitor(every_n_steps=4)
    saving = ModelCheckpoint("saved", save_on_train_epoch_end=True)
    fit(Classifier(), [first, second, saving], enable_checkpointing=True)
    again = lt.ActivationMonitor(every_n_steps=1), lt.ActivationMonitor(every_n_steps=4)
    path = saving.best_model_path
    fit(Classifier(), [*again, saving], max_epochs=2, ckpt_path=path, enable_checkpointing=True)
    assert [steps(monitor.history) for monitor in again] == [list(range(12)), [0, 1, 2, 4, 8]]


def snapshots(count):
    return [lt.Snapshot(step) for step in range(count)]


def test_thinning_keeps_the_first_and_the_latest():
    kept = []
    for snapshot in snapshots(3000):
        history.append(kept, snapshot)
        assert len(kept) <= history.MOST
        assert kept[-1] is snapshot
        assert steps(kept[: history.START]) == list(range(min(snapshot.step + 1, history.START)))
    assert steps(kept) == sorted(set(steps(kept)))
    assert steps(kept[-history.WINDOW :]) == list(range(3000 - history.WINDOW, 3000))
    gaps = [after - before for before, after in zip(steps(kept), steps(kept)[1:], strict=False)]
    assert max(gaps) <= 2 * 3000 / history.MOST  # evenly, not the old ones more and more thinly


def test_only_the_latest_keep_their_sums():
    monitor = lt.ActivationMonitor(every_n_steps=1)
    fit(Classifier(), [monitor], batches(9))
    with_sums = [snapshot.step for snapshot in monitor.history if snapshot.activations[0].sums is not None]
    assert with_sums == list(range(9 - history.WINDOW, 9))


def test_a_training_taken_up_earlier_overwrites_what_came_after():
    kept = snapshots(10)
    history.append(kept, lt.Snapshot(4, loss=0.5))
    assert steps(kept) == [0, 1, 2, 3, 4]
    assert kept[-1].loss == 0.5
