"""Padding that is read like data is found where lengths are known; masks, packing and one length are right."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader

import lightning_tricks as lt
from lightning_tricks.experiments import padding

G = torch.Generator().manual_seed(0)
LENGTHS = torch.randint(3, 11, (64,), generator=G)
IDS = torch.randint(1, 30, (64, 12), generator=G) * (torch.arange(12) < LENGTHS[:, None])
Y = torch.arange(64) % 2


class Net(nn.Module):
    """An embedding, a body, and one answer a sequence."""

    def __init__(self, kind, masked):
        super().__init__()
        self.kind, self.masked = kind, masked
        self.embedding, self.last = nn.Embedding(30, 16, padding_idx=0), nn.Linear(16, 2)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.body = {
            "attention": lambda: nn.TransformerEncoder(layer, 1),
            "own attention": lambda: nn.Linear(16, 1),
            "recurrence": lambda: nn.GRU(16, 16, batch_first=True),
            "convolution": lambda: nn.Conv1d(16, 16, 3, padding=1),
            "mean": nn.Identity,
            "one length": lambda: nn.Linear(12 * 16, 16),
        }[kind]()

    def forward(self, ids, lengths=None):
        x, real = self.embedding(ids), ids != 0
        if self.kind == "attention":
            x = self.body(x, src_key_padding_mask=~real if self.masked else None)
            x = (x * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        elif self.kind == "own attention":
            score = self.body(x)[..., 0]
            score = score.masked_fill(~real, -1e9) if self.masked else score
            x = (score.softmax(1)[..., None] * (x + 1)).sum(1)
        elif self.kind == "recurrence":
            x = pack_padded_sequence(x, real.sum(1), batch_first=True, enforce_sorted=False) if self.masked else x
            x = self.body(x)[1][0]
        elif self.kind == "convolution":
            x = self.body(x.transpose(1, 2)).amax(2)
        elif self.kind == "one length":
            x = self.body(x.flatten(1))
        else:
            x = x.mean(1)
        return self.last(x)


class Step(nn.Module):
    """A batch of ids with their lengths, which the network may look at."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x["ids"], x["lengths"])


def with_lengths():
    return [({"ids": IDS[i : i + 16], "lengths": LENGTHS[i : i + 16]}, Y[i : i + 16]) for i in range(0, 64, 16)]


def padded_to_the_longest():
    def collate(rows):
        ids, y = zip(*rows, strict=True)
        return torch.stack(ids)[:, : max(int((each != 0).sum()) for each in ids)], torch.stack(y)

    return DataLoader(list(zip(IDS, Y, strict=True)), 7, collate_fn=collate)


def of_one_length():
    return [(IDS[i : i + 16], Y[i : i + 16]) for i in range(0, 64, 16)]


def alarms(net, data):
    torch.manual_seed(0)
    diagnosis = lt.checkup(net(), data, F.cross_entropy, num_batches=3, experiments="padding")
    return [each for each in diagnosis.findings if each.problem == "batch_mixing" and each.rank and each.proof]


@pytest.mark.parametrize("kind", ["attention", "own attention", "recurrence"])
def test_padding_that_is_read(kind):
    (finding,) = alarms(lambda: Step(Net(kind, masked=False)), with_lengths())
    assert finding.proof.name == "padding"
    assert ("pack_padded" in finding.remedies[0].text) is (kind == "recurrence")
    assert alarms(lambda: Net(kind, masked=False), padded_to_the_longest())
    assert not alarms(lambda: Step(Net(kind, masked=True)), with_lengths())
    assert not alarms(lambda: Net(kind, masked=True), padded_to_the_longest())


@pytest.mark.parametrize("kind", ["attention", "convolution", "mean", "one length"])
def test_sequences_of_one_length_may_be_read_whole(kind):
    assert not alarms(lambda: Net(kind, masked=False), of_one_length())


@pytest.mark.parametrize("kind", ["convolution", "mean"])
def test_what_reads_padding_on_purpose(kind):
    assert not alarms(lambda: Step(Net(kind, masked=False)), with_lengths())


def test_masked_outputs_do_not_change():
    torch.manual_seed(0)
    found = padding(Net("attention", masked=True), (IDS, Y), F.cross_entropy)
    assert found.numbers["change"] < 1e-5
    assert padding(Net("attention", masked=False), (IDS, Y), F.cross_entropy).numbers["change"] > 0.05


def test_outputs_of_every_position():
    class Tagger(nn.Module):
        def __init__(self, causal):
            super().__init__()
            self.embedding, self.last = nn.Embedding(30, 16), nn.Linear(16, 3)
            self.body, self.causal = nn.MultiheadAttention(16, 2, batch_first=True), causal

        def forward(self, ids):
            x, count = self.embedding(ids), ids.shape[1]
            mask = torch.ones(count, count, dtype=torch.bool).triu(1) if self.causal else None
            return self.last(self.body(x, x, x, attn_mask=mask)[0]).transpose(1, 2)

    tags = IDS % 3
    assert padding(Tagger(causal=True), (IDS, tags), F.cross_entropy).numbers["change"] < 1e-5
    assert padding(Tagger(causal=False), (IDS, tags), F.cross_entropy).numbers["change"] > 0.05


@pytest.mark.parametrize("ids", [IDS.clamp(min=1), IDS.flip(1), (IDS > 0).long()], ids=["full", "left", "mask"])
def test_without_padding_at_the_end_it_is_not_asked(ids):
    assert not padding(Net("attention", masked=False), (ids, Y), F.cross_entropy).conclusive
