"""A history survives a checkpoint, also one that an older version wrote."""

import json
import pathlib

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import lightning_tricks as lt
from lightning_tricks.callbacks.monitoring.checkpoints import KEY, restore, state_of
from lightning_tricks.probes.packed import pack, unpack
from tests.callbacks.trainings import Classifier, batches, fit, monitors
from tests.versions import LIGHTNING

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
    if where == "amid an epoch" and LIGHTNING < (2, 5):
        pytest.skip("Lightning 2.4 does not begin again amid an epoch where it stopped")
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
    saved = torch.load(path, weights_only=True)
    assert not {monitor.state_key for monitor in first} & set(saved["callbacks"])
    assert saved[KEY]["histories"]["records"].numel() > 0
    train([saving, *second], 3, path, enable_checkpointing=True, **options)
    for one, other in zip(whole, second, strict=True):
        assert steps(other.history) == steps(one.history)
        assert known_after_resuming(other) == known_after_resuming(one)
    assert whole[2].diagnosis.to_dict()["findings"] == second[2].diagnosis.to_dict()["findings"]


def known_after_resuming(monitor):
    """Without what the step before has to be known for, and without what every fit looks at in its first step."""
    (history,) = unpack(pack([monitor.history]))  # with the precision that a checkpoint has
    known = [snapshot.to_dict() for snapshot in history]
    for snapshot in known:
        snapshot.pop("preflight", None)
        for name in ("cleared", "stale"):
            snapshot["training"].pop(name)
    return known, monitor.own_state()


def test_checkpoint_after_an_exception_is_plain_data(tmp_path):
    saving = ModelCheckpoint("saved", every_n_train_steps=1, save_top_k=-1)
    doctor = lt.TrainingDoctor(every_n_steps=1, on_problem="log")
    data = batches(4)
    data[2][0][0, 0] = float("inf")
    fit(Classifier(), [doctor, saving], data, enable_checkpointing=True)
    for path in pathlib.Path("saved").glob("*.ckpt"):
        state = torch.load(path, weights_only=True)[KEY]
        (own,) = state["monitors"]
        assert set(own["state"]) == {"loss_history", "reported"}
        assert _builtin(own)
        assert set(state["histories"]) == {"version", "header", "layouts", "steps", "records"}
    restored = lt.TrainingDoctor(every_n_steps=1, on_problem="log")
    restore([restored], state_of([doctor]))
    assert known_after_resuming(restored) == known_after_resuming(doctor)
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


OLD = json.loads(pathlib.Path(__file__).with_name("state_of_version_0_1.json").read_text())


def within(new, old):
    """What is new, but for what the old version did not know."""
    if isinstance(old, dict):
        return {key: within(new[key], value) for key, value in old.items()}
    return [within(*pair) for pair in zip(new, old, strict=True)] if isinstance(old, list) else new


def test_states_of_version_0_1_are_read():
    """What ``trainer.save_checkpoint`` wrote of three monitors, by their state keys."""
    monitors = [
        lt.ActivationMonitor(every_n_steps=4, layers="net.1"),
        lt.GradientFlowMonitor(every_n_steps=4, layers="net.0*", max_patterns=None),
        lt.TrainingDoctor(every_n_steps=4, on_problem="log", ignore=("bias_shift",)),
    ]
    assert [monitor.state_key for monitor in monitors] == list(OLD)
    for monitor, old in zip(monitors, OLD.values(), strict=True):
        monitor.load_state_dict(old)
        assert within([snapshot.to_dict() for snapshot in monitor.history], old["history"]) == old["history"]
        assert steps(monitor.history) == [0, 1, 2]
        assert monitor.own_state()["loss_history"] == old["curve"]
        assert len(monitor.loss_history.losses) == 1
    doctor, old = monitors[2], OLD[monitors[2].state_key]
    assert doctor.own_state()["reported"] == old["told"] == [["symmetric_weights", "net.0"]]
    assert doctor.diagnosis.findings[0].problem == "symmetric_weights"


def test_states_without_losses_are_read():
    """Before they were kept there were none."""
    monitor = lt.ActivationMonitor()
    monitor.load_state_dict({"history": []})
    assert monitor.loss_history.losses == []
