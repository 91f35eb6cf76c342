"""What happens between training steps: evaluation of all members, their hooks, the parts that callbacks get."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from lightning_tricks.ensemble import BaggingEnsemble
from lightning_tricks.ensemble.members import FORWARDED_HOOKS
from tests.ensemble.trainings import Plain, data, fit, trainer

HOOKS_OF_A_FIT = [hook for hook in FORWARDED_HOOKS if "test" not in hook]


class Evaluated(Plain):
    """Without layers that draw or keep statistics; ``called`` notes what was called."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double())
        self.called = []

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.called.append((float(x[0, 0]), torch.is_grad_enabled(), self.training))
        self.log("val_loss", F.cross_entropy(self(x), y))

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.called.append(dataloader_idx)
        self.log(f"test_loss_{dataloader_idx}", F.cross_entropy(self(batch[0]), batch[1]))


def test_all_members_see_the_same_patterns_and_their_mean_is_logged():
    validation = data(20, seed=9)
    ensemble, run = fit(Evaluated, "vmap", max_epochs=1, val=validation, num_sanity_val_steps=0)
    x, y = validation.tensors
    with torch.no_grad():
        losses = [float(F.cross_entropy(member(x), y)) for member in ensemble.networks]
    assert float(run.callback_metrics["val_loss"]) == pytest.approx(sum(losses) / 3)
    first = [(float(x[0, 0]), False, False), (float(x[16, 0]), False, False)]  # two batches, 16 and 4
    assert [member.called for member in ensemble.networks] == [first] * 3


def test_the_sanity_check_counts_for_nothing():
    bagging = {"monitor": "val_loss", "patience": 1}
    ensemble, _ = fit(Evaluated, "vmap", max_epochs=1, val=data(20, seed=9), bagging=bagging, num_sanity_val_steps=2)
    assert ensemble.stopping.waited == {0: 0, 1: 0, 2: 0}
    assert ensemble.active == [0, 1, 2]


def test_several_test_loaders():
    ensemble = BaggingEnsemble(Evaluated, 2, task="classification")
    loaders = [DataLoader(data(8, seed=seed), 4) for seed in (1, 2)]
    (one, two) = trainer().test(ensemble, loaders, verbose=False)
    assert [member.called for member in ensemble.networks] == [[0, 0, 1, 1]] * 2
    assert {*one, *two} == {"test_loss_0/dataloader_idx_0", "test_loss_1/dataloader_idx_1"}


def test_no_validation_is_asked_for_where_no_member_has_one():
    ensemble, run = fit(Plain, "vmap", max_epochs=1)
    assert run.num_val_batches == []
    assert not any(name.startswith("val") for name in run.callback_metrics)
    assert ensemble.used_backend == "vmap"


def test_hooks_of_each_member_are_called_as_often_as_its_own_fit_would():
    calls = []

    class Hooked(Evaluated):
        number = 0

        def __init__(self):
            super().__init__()
            self.number = Hooked.number
            Hooked.number += 1

    def noted(hook):
        def call(self):
            calls.append((hook, self.number))
            if hook == "on_train_epoch_end":
                self.log("number", float(self.number))

        return call

    for hook in HOOKS_OF_A_FIT:
        setattr(Hooked, hook, noted(hook))
    _, run = fit(Hooked, "loop", max_epochs=2, val=data(20, seed=9), num_sanity_val_steps=0)
    for hook in HOOKS_OF_A_FIT:
        times = 2 if "epoch" in hook or "validation" in hook else 1
        assert [number for name, number in calls if name == hook] == [0, 1, 2] * times, hook
    assert float(run.callback_metrics["number"]) == 1.0


def test_parts_for_callbacks_are_the_members_rows_and_sets():
    ensemble, _ = fit(Plain, "vmap", max_epochs=1)
    x = torch.arange(12.0).view(3, 4)
    parts = ensemble.member_parts((x, "word"))
    assert [(number, member is ensemble.networks[number]) for number, member, _ in parts] == [
        (0, True), (1, True), (2, True),
    ]  # fmt: skip
    assert all(torch.equal(own, x[number]) and word == "word" for number, _, (own, word) in parts)
    inputs, targets = data().tensors
    for number, _, batches in ensemble.member_batches([]):
        draws = ensemble.trainer.datamodule.sets.indices[number]
        for _ in range(2):  # as often as asked for
            own = [torch.cat(parts) for parts in zip(*batches, strict=True)]
            assert torch.equal(own[0], inputs[draws])
            assert torch.equal(own[1], targets[draws])


def test_parts_of_batches_that_no_data_module_made():
    ensemble = BaggingEnsemble(Plain, 2, task="classification")
    batches = [torch.arange(4.0).view(2, 2), torch.arange(4.0, 8.0).view(2, 2)]
    for number, _, own in ensemble.member_batches(batches):
        for _ in range(2):
            assert [batch.tolist() for batch in own] == [batch[number].tolist() for batch in batches]


def test_a_name_that_nobody_logged():
    with pytest.warns(UserWarning, match=r"no member logged 'mistyped', only loss: none was stopped"):
        fit(Evaluated, "vmap", max_epochs=1, bagging={"monitor": "mistyped", "patience": 1})
