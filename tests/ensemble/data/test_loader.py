"""Orders and batches: who sees which pattern at which step, and how often it is loaded."""

import torch
from torch.utils.data import Dataset, TensorDataset

from lightning_tricks.ensemble import BootstrapDataModule
from lightning_tricks.ensemble.data import loader as loaders

SIZE = 50


class Counting(Dataset):
    """Patterns that are their own index, and how often each was loaded."""

    def __init__(self):
        self.loads = torch.zeros(SIZE, dtype=torch.long)

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        self.loads[index] += 1
        return {"x": torch.tensor([float(index)]), "name": str(index), "y": index}


def numbers(**options):
    return BootstrapDataModule(TensorDataset(torch.arange(SIZE)), 4, 16, **options)


def epoch(loader, number=0):
    loader.sampler.set_epoch(number)
    return torch.cat([batch[0] if isinstance(batch, tuple) else batch["y"] for batch in loader], 1)


def test_orders_differ_between_epochs_and_members_and_are_reproducible():
    one, two = epoch(numbers().train_dataloader(), 0), epoch(numbers().train_dataloader(), 1)
    assert not torch.equal(one, two)
    assert torch.equal(one, epoch(numbers().train_dataloader(), 0))
    full = epoch(numbers(bootstrap=False).train_dataloader())
    assert len(full.unique(dim=0)) == 4
    still = numbers(shuffle=False).train_dataloader()
    assert torch.equal(epoch(still, 0), epoch(still, 1))


def test_a_shared_pattern_is_loaded_once_a_batch():
    dataset = Counting()
    list(BootstrapDataModule(dataset, 8, 10).train_dataloader())
    naive = 8 * SIZE
    assert int(dataset.loads.sum()) < naive / 3


def test_all_members_but_one_process_at_a_time():
    batch = next(iter(BootstrapDataModule(Counting(), 3, 10).train_dataloader()))
    assert batch["x"].shape == (3, 10, 1)
    assert torch.equal(batch["x"][..., 0], batch["y"].float())


def test_workers_load_the_same():
    one, two = (BootstrapDataModule(Counting(), 3, 10, num_workers=count) for count in (0, 1))
    assert torch.equal(epoch(one.train_dataloader(), 2), epoch(two.train_dataloader(), 2))


def test_drop_last_and_lengths():
    assert [len(numbers(drop_last=drop).train_dataloader()) for drop in (False, True)] == [4, 3]
    assert len(list(numbers(drop_last=True).train_dataloader())) == 3


def test_indices_are_moved_many_steps_at_once(monkeypatch):
    """A copy for each step would have a GPU wait for the next one."""
    whole = torch.arange(4 * 40).view(4, 40)
    blocks, moves, cat = whole.split(16, 1), [], torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts, dim: moves.append(len(parts)) or cat(parts, dim))
    found = list(loaders.moved(blocks, torch.device("cpu"), 2))
    assert moves == [2, 1]
    assert all(torch.equal(one, two) for one, two in zip(found, blocks, strict=True))
