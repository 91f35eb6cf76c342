"""Batches [K, B, ...]: which pattern goes to which member."""

import lightning.pytorch as L
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_tricks.ensemble import BaggingEnsemble, BootstrapDataModule
from lightning_tricks.ensemble.data.data_module import bootstrap, members_of_process
from tests.ensemble.data.test_loader import SIZE, Counting, epoch, numbers
from tests.ensemble.trainings import Plain, data, trainer


@pytest.mark.parametrize("dataset", [TensorDataset(torch.arange(SIZE)), Counting()])
@pytest.mark.parametrize("number", [0, 1, 7])
def test_an_epoch_is_each_members_set(dataset, number):
    module = BootstrapDataModule(dataset, 4, 16, seed=3)
    seen = epoch(module.train_dataloader(), number)
    assert torch.equal(seen.sort(1).values, bootstrap(SIZE, 4, 3).indices.sort(1).values)


def test_state_amid_an_epoch():
    whole = epoch(numbers().train_dataloader(), 1)
    loader = numbers().train_dataloader()
    loader.sampler.set_epoch(1)
    batches = iter(loader)
    first = [next(batches)[0] for _ in range(2)]
    other = numbers().train_dataloader()
    other.load_state_dict(loader.state_dict())
    other.sampler.set_epoch(1)
    assert torch.equal(torch.cat([*first, *(batch[0] for batch in other)], 1), whole)


def test_a_subset_of_tensors_and_a_data_module():
    subset = Subset(TensorDataset(torch.arange(100)), range(50, 100))
    assert int(epoch(BootstrapDataModule(subset, 2, 16).train_dataloader()).min()) >= 50

    class Given(L.LightningDataModule):
        def train_dataloader(self):
            return DataLoader(TensorDataset(torch.arange(SIZE)), batch_size=3)

        def val_dataloader(self):
            return DataLoader(TensorDataset(torch.arange(5)), batch_size=5)

    module = BootstrapDataModule(Given(), 4, 16)
    module.setup("fit")
    assert torch.equal(epoch(module.train_dataloader()), epoch(numbers().train_dataloader()))
    assert len(next(iter(module.val_dataloader()))[0]) == 5


class Seen(Plain):
    """Remembers which patterns it was trained on; the first feature is the pattern's number."""

    def training_step(self, batch, batch_idx):
        vars(self).setdefault("seen", set()).update(batch[0][:, 0].tolist())
        return super().training_step(batch, batch_idx)


def test_no_pattern_out_of_bag_is_ever_trained_on():
    x, y = data().tensors
    x = torch.cat([torch.arange(len(x), dtype=x.dtype).unsqueeze(1), x[:, 1:]], 1)
    ensemble = BaggingEnsemble(Seen, 5, task="classification", backend="loop")
    module = BootstrapDataModule(TensorDataset(x, y), 5, 16)
    trainer(max_epochs=4).fit(ensemble, module)
    for member, unseen in zip(ensemble.networks, module.sets.out_of_bag, strict=True):
        assert {float(index) for index in unseen.nonzero()} == {float(i) for i in range(40)} - member.seen


def test_shares_of_members():
    for world in (1, 2, 3, 5):
        assert [k for rank in range(world) for k in members_of_process(7, rank, world)] == list(range(7))


@pytest.mark.parametrize(
    ("options", "message"), [({"batch_size": 0}, "batch_size"), ({"parallel": "both"}, '"data" or "members"')]
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        BootstrapDataModule(data(), 3, **options)
