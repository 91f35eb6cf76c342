"""Ids that are outside of an embedding are found before validation fails; rows that are never read are told."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.experiments import token_ids

G = torch.Generator().manual_seed(0)
IDS, Y = torch.randint(20, (200, 6), generator=G), torch.arange(200) % 2


def net() -> nn.Module:
    return nn.Sequential(nn.Embedding(30, 4), nn.Flatten(), nn.Linear(24, 2))


def loader(ids: torch.Tensor) -> DataLoader:
    return DataLoader(TensorDataset(ids, Y[: len(ids)]), 20)


def test_rows_and_new_ids():
    numbers = token_ids(net(), loader(IDS), F.cross_entropy, loader(IDS[:50] + 5)).numbers
    assert (numbers["rows"], numbers["unread"], numbers["outside"]) == (30, 10, 0)
    assert numbers["new"] == pytest.approx(float((IDS[:50] >= 15).float().mean()))


@pytest.mark.parametrize(("more", "outside"), [(0, False), (5, False), (15, True)])
def test_a_checkup_names_ids_without_a_row(more, outside):
    options = {"num_batches": 2, "experiments": "token_ids", "val_data": loader(IDS[:50] + more)}
    diagnosis = lt.checkup(net(), loader(IDS), F.cross_entropy, **options)
    assert ("validation_mismatch" in {each.problem for each in diagnosis.findings if each.rank}) is outside


def test_without_an_embedding_it_is_not_asked():
    numbers = nn.Linear(6, 2)
    assert not token_ids(numbers, (torch.rand(8, 6), Y[:8]), F.cross_entropy).conclusive
    data = (torch.rand(8, 6), Y[:8])
    assert lt.checkup(numbers, data, F.cross_entropy, num_batches=2, experiments="token_ids").experiments == []
