"""Members that stop by themselves: against separate fits that stop early and keep their best weights."""

import copy

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_tricks.ensemble import BaggingEnsemble
from lightning_tricks.ensemble.training.stopping import MemberStopping
from tests.ensemble.trainings import Smooth, data, difference, fit, separate


class Overfitting(Smooth):
    """Adam with momentum: a member whose gradient was only zeroed would drift on."""

    def __init__(self, optimizer=None):
        super().__init__(optimizer or (lambda p: torch.optim.Adam(p, lr=0.01)))

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x), y))


class KeepsBest(L.Callback):
    def __init__(self):
        self.best, self.state = float("inf"), None

    def on_validation_end(self, trainer, pl_module):
        loss = float(trainer.callback_metrics["val_loss"])
        if loss < self.best:
            self.best, self.state = loss, copy.deepcopy(pl_module.state_dict())


def adafactor(parameters):
    return torch.optim.Adafactor(parameters, lr=0.3)


@pytest.mark.parametrize("backend", ["vmap", "loop", "separate"])
def test_each_member_stops_where_its_own_fit_stops(backend):
    def make():
        return Overfitting(adafactor if backend == "separate" else None)

    validation, kept = data(20, seed=9), [KeepsBest() for _ in range(4)]
    members, runs = separate(
        make,
        4,
        val=DataLoader(validation, 16),
        max_epochs=30,
        num_sanity_val_steps=0,
        callbacks=lambda number: [kept[number], EarlyStopping("val_loss", patience=2)],
    )
    epochs = [run.current_epoch for run in runs]
    for member, best in zip(members, kept, strict=True):
        member.load_state_dict(best.state)
    ensemble, run = fit(
        make,
        "loop" if backend == "separate" else backend,
        4,
        val=validation,
        max_epochs=30,
        num_sanity_val_steps=0,
        bagging={"monitor": "val_loss", "patience": 2},
    )
    assert len(set(epochs)) > 1, "the members have to stop at different epochs"
    assert run.current_epoch == max(epochs)
    assert difference(ensemble.networks, members) < 1e-10


def test_finished_members_leave_the_stack():
    sizes = []

    class Sizes(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            sizes.append(len(pl_module.active))
            if pl_module._stack is not None:
                group = trainer.optimizers[0].param_groups[0]["params"]
                assert {len(value) for value in group} == {len(pl_module.active)}
                states = trainer.optimizers[0].state
                assert all(states[value]["exp_avg"].shape == value.shape for value in group if value in states)

    bagging = {"monitor": "val_loss", "patience": 1}
    fit(Overfitting, "vmap", 6, val=data(20, seed=9), max_epochs=20, bagging=bagging, callbacks=[Sizes()])
    assert sizes[0] == 6
    assert sizes[-1] < 6
    assert sizes == sorted(sizes, reverse=True)


def test_stopped_by_patterns_never_seen():
    ensemble, run = fit(Overfitting, "vmap", 4, max_epochs=25, bagging={"monitor": "out_of_bag", "patience": 2})
    assert run.current_epoch < 25
    assert sorted(ensemble.stopping.best) == [0, 1, 2, 3]
    for number, member in enumerate(ensemble.networks):
        x, y = data().tensors
        unseen = run.datamodule.sets.out_of_bag[number]
        with torch.no_grad():
            loss = float(F.cross_entropy(member.eval()(x[unseen]), y[unseen]))
        assert loss == pytest.approx(ensemble.stopping.best[number], abs=1e-10)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_resumes_with_members_that_had_stopped(tmp_path):
    bagging = {"monitor": "val_loss", "patience": 1}
    saving = ModelCheckpoint(tmp_path, "{epoch}", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True)
    options = {"val": data(20, seed=9), "num_sanity_val_steps": 0, "bagging": bagging}
    whole, run = fit(Overfitting, "vmap", 6, max_epochs=12, callbacks=[saving], enable_checkpointing=True, **options)
    middle = next(
        path
        for path in sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        if 0 < len(torch.load(path, weights_only=True)["bagging"]["active"]) < 6
    )
    resumed, again = fit(Overfitting, "vmap", 6, max_epochs=12, ckpt_path=middle, **options)
    assert again.current_epoch == run.current_epoch
    assert difference(resumed.networks, whole.networks) == 0.0


def test_a_monitor_that_nobody_logs():
    with pytest.warns(UserWarning, match="no member logged 'val_los', only loss, val_loss: none was stopped"):
        fit(Overfitting, "loop", 2, val=data(20, seed=9), bagging={"monitor": "val_los", "patience": 1})


def test_waiting_and_nan():
    stopping = MemberStopping(2, "max", min_delta=0.5)
    weights = {0: {"w": torch.zeros(1)}}
    found = [stopping.update({0: value}, weights) for value in (float("nan"), 1.0, 1.4, 1.6, 1.7, float("nan"))]
    assert found == [[], [], [], [], [], [0]]
    assert stopping.best == {0: 1.6}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"patience": 0, "monitor": "x"}, "patience must be"), ({"patience": 3}, "patience needs a monitor"),
     ({"monitor": "x", "mode": "up"}, '"min" or "max"')],
)  # fmt: skip
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        BaggingEnsemble(Smooth, 2, task="classification", **options)
