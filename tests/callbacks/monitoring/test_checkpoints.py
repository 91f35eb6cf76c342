"""One history for all monitors of a Trainer; whatever is wrong with it, the training goes on."""

import copy
import os

import pytest
import torch

import lightning_tricks as lt
from lightning_tricks.callbacks.monitoring.checkpoints import KEY
from tests.callbacks.trainings import Classifier, fit, monitors

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")


def steps(monitor):
    return [snapshot.step for snapshot in monitor.history]


def save(looking, path="saved.ckpt"):
    trainer = fit(Classifier(), looking)
    trainer.save_checkpoint(path)
    return torch.load(path, weights_only=True)


def resume(checkpoint, looking):
    torch.save(checkpoint, "other.ckpt")
    return fit(Classifier(), looking, max_epochs=2, ckpt_path="other.ckpt")


def test_one_history_is_saved_for_all_monitors():
    save(monitors(), "three.ckpt")
    save(monitors()[:1], "one.ckpt")
    fit(Classifier(), []).save_checkpoint("none.ckpt")
    three, one, none = (os.path.getsize(f"{name}.ckpt") for name in ("three", "one", "none"))
    assert three - none < 1.3 * (one - none)  # not three times as much; what stands once a look is per monitor


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("saves", [True, False])
def test_looks_are_packed_when_they_come_where_checkpoints_are_written(saves):
    """Of a long history nothing but the latest look is left to do when it is saved."""

    def make():
        often = lt.ActivationMonitor(every_n_steps=1)
        return [often, lt.TrainingDoctor(every_n_steps=2, on_problem="log", report=False)]

    looking = make()
    trainer = fit(Classifier(), looking, max_epochs=2, enable_checkpointing=saves)
    packed = [["place" in snapshot.packing for snapshot in each.history] for each in looking]
    assert sum(map(len, packed)) > 8
    assert all(all(each[:-2]) == saves for each in packed)
    references = {id(s.packing["place"].reference) for each in looking for s in each.history[:-2] if saves}
    assert len(references) == int(saves)
    trainer.save_checkpoint("saved.ckpt")
    again = make()
    resume(torch.load("saved.ckpt", weights_only=True), again)
    for one, other in zip(looking, again, strict=True):
        assert steps(one) == steps(other)
        for before, after in zip(one.history, other.history, strict=True):
            assert [r.name for r in before.weighted] == [r.name for r in after.weighted]
            assert [r.std for r in before.weighted] == pytest.approx([r.std for r in after.weighted], rel=1e-6)


@pytest.mark.parametrize("second", [{}, {"log_per_layer": False}, {"layers": "net.0"}])
@pytest.mark.parametrize("cls", [lt.ActivationMonitor, lt.GradientFlowMonitor, lt.TrainingDoctor])
def test_monitors_that_are_equal_each_have_their_own_history(cls, second):
    options = {"on_problem": "log", "report": False} if cls is lt.TrainingDoctor else {}
    make = lambda: [cls(every_n_steps=4, **options), cls(every_n_steps=4, **options, **second)]  # noqa: E731
    first, again = make(), make()
    checkpoint = save(first)
    resume(checkpoint, again)
    for one, other in zip(first, again, strict=True):
        assert steps(one) == [0, 1, 2, 4]
        assert steps(other) == [0, 1, 2, 4, 8]
        assert len(other.history[0].weighted) == len(one.history[0].weighted)


def test_a_history_is_resumed_by_fewer_and_by_other_monitors():
    checkpoint = save(monitors())
    doctor = lt.TrainingDoctor(every_n_steps=1, on_problem="log", report=False)
    other = lt.ActivationMonitor(every_n_steps=3)
    resume(checkpoint, [other, doctor])
    assert steps(doctor) == list(range(12))
    assert steps(other) == [6, 9]


def damage(name):
    def cut(state):
        state["histories"]["records"] = state["histories"]["records"][:50]

    def drop(state):
        del state["histories"]["steps"]

    def other_version(state):
        state["histories"]["version"] = 99

    def noise(state):
        state["histories"]["header"][:] = 7

    def no_monitors(state):
        state["monitors"] = None

    return {f.__name__: f for f in (cut, drop, other_version, noise, no_monitors)}[name]


@pytest.mark.parametrize("name", ["cut", "drop", "other_version", "noise", "no_monitors"])
def test_a_damaged_state_ends_in_new_histories_and_one_warning(name):
    checkpoint = save(monitors())
    damage(name)(checkpoint[KEY])
    again = monitors()
    with pytest.warns(UserWarning, match="the monitors' history in this checkpoint cannot be read") as told:
        resume(checkpoint, again)
    assert len([w for w in told if "cannot be read" in str(w.message)]) == 1
    assert all(steps(monitor) == list(range(6, 12)) for monitor in again)


def old_state(looking):
    """As the versions before this layout wrote it among the states of the callbacks."""
    history = [snapshot.to_dict() for snapshot in looking.history]
    return {"history": history, **looking.own_state()}


def unknown_fields(state):
    for snapshot in state["history"]:
        snapshot["tomorrow"] = snapshot["training"]["tomorrow"] = 1
        for kind in ("activations", "weighted", "parameters"):
            snapshot[kind] = [{**record, "tomorrow": 1} for record in snapshot[kind]]


def missing_fields(state):
    for snapshot in state["history"]:
        del snapshot["not_seen"], snapshot["loss_scale"], snapshot["training"], snapshot["losses"]


@pytest.mark.parametrize("change", [lambda state: None, unknown_fields, missing_fields])
def test_states_of_other_versions_are_read(change):
    first = monitors()
    checkpoint = save(first)
    del checkpoint[KEY]
    for monitor in first:
        checkpoint["callbacks"][monitor.state_key] = copy.deepcopy(old_state(monitor))
        change(checkpoint["callbacks"][monitor.state_key])
    again = monitors()
    resume(checkpoint, again)
    assert all(steps(monitor) == list(range(12)) for monitor in again)


@pytest.mark.parametrize(
    "state",
    [{"losses": []}, {"history": [{}]}, {"history": 7}, {"history": [{"step": 0, "activations": [{}]}]},
     {"history": [], "loss_history": {}}, {"history": [], "reported": [1]}],
    ids=str,
)  # fmt: skip
def test_states_that_are_none_are_a_warning(state):
    doctor = lt.TrainingDoctor(on_problem="log")
    with pytest.warns(UserWarning, match="cannot be read, as it is damaged or of another version: they begin a new"):
        doctor.load_state_dict(state)
    assert doctor.history == []
    assert doctor.diagnosis.state == "unknown"


def test_a_history_that_cannot_be_saved_is_a_warning(monkeypatch):
    looking = monitors()
    monkeypatch.setattr(looking[1], "own_state", lambda: 1 / 0)
    trainer = fit(Classifier(), looking)
    with pytest.warns(UserWarning, match="goes without the monitors' history: ZeroDivisionError"):
        trainer.save_checkpoint("saved.ckpt")
    assert KEY not in torch.load("saved.ckpt", weights_only=True)


def test_what_cannot_be_packed_is_a_warning_where_it_is_saved_and_no_end_of_the_looks(monkeypatch):
    monkeypatch.setattr("lightning_tricks.probes.packed._pack_step", lambda *args: 1 / 0)
    looking = monitors()
    with pytest.warns(UserWarning, match="goes without the monitors' history: ZeroDivisionError"):
        fit(Classifier(), looking, enable_checkpointing=True)
    assert all(each.history and not each.errors.failed for each in looking)
    assert len(looking[0].history) > 2
