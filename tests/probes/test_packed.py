"""A packed history is the history, in few bytes."""

import base64
import dataclasses
import io
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.probes import Snapshot, probe, snapshot
from lightning_tricks.probes.blocks import Reference
from lightning_tricks.probes.packed import pack, unpack
from lightning_tricks.probes.records.activations import ActivationRecord


def network():
    return nn.Sequential(
        nn.Linear(6, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 32), nn.Tanh(),
        *(layer for _ in range(6) for layer in (nn.Linear(32, 32), nn.ReLU())), nn.Linear(32, 3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def history():
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    found = []
    for step in range(40):
        with probe(model, optimizer) as p:
            optimizer.zero_grad()
            F.cross_entropy(model(torch.randn(32, 6)), torch.randint(3, (32,))).backward()
            optimizer.step()
        made = dataclasses.replace(p.snapshot(), step=step, recent_losses=(0.5, 1 / (step + 3)), epoch=step / 7)
        found.append(made.light())
    return found


def near(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(near, one, other))
    return math.isclose(one, other, rel_tol=1e-6) if isinstance(one, float) else one == other


def test_a_history_comes_back(history):
    (found,) = unpack(pack([history]))
    for one, other in zip(history, found, strict=True):
        assert near(one.to_dict(), other.to_dict())
        assert other.head() == one.head()  # what stands once a step is exact
    (again,) = unpack(pack([found]))
    assert [s.to_dict() for s in again] == [s.to_dict() for s in found]


def test_what_histories_share_is_there_once(history):
    one, three = pack([history]), pack([history, history[::2], [s.only(lambda name: name == "0") for s in history]])
    assert len(three["records"]) < 1.02 * len(one["records"])
    whole, half, first = unpack(three)
    assert half[3].activations[0] is whole[6].activations[0]
    assert [record.name for record in first[5].weighted] == ["0"]
    assert first[5].weighted[0] is whole[5].weighted[0]


def numbers_in(value):
    if isinstance(value, (list, tuple)):
        return sum(map(numbers_in, value))
    return int(isinstance(value, (int, float)) and not isinstance(value, bool))


def test_a_number_takes_hardly_more_than_four_bytes(history):
    buffer = io.BytesIO()
    torch.save(pack([history, history, history]), buffer)
    values = numbers_in([list(kind) for s in history for kind in map(_values, s.to_dict().values())])
    assert buffer.tell() < 1.1 * 4 * values


def _values(kind):
    return [list(record.values()) for record in kind] if kind and isinstance(kind, list) and _is_record(kind) else []


def _is_record(kind):
    return isinstance(kind[0], dict)


def test_fields_that_nobody_knows_are_left_out_and_new_ones_get_their_default(history, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Newer(ActivationRecord):
        pairs: tuple[tuple[int, float], ...] = ()
        verdict: str | None = None

    records = tuple(Newer(**{**vars_of(r), "pairs": ((1, 0.5),)}) for r in history[0].activations)
    newer = [dataclasses.replace(history[0], activations=records)]
    packed = pack([newer])
    (found,) = unpack(packed)
    assert near(found[0].to_dict(), history[0].to_dict())  # read by this version
    monkeypatch.setitem(snapshot.KINDS, "activations", Newer)
    (found,) = unpack(packed)  # and by that one
    assert found[0].activations[0].pairs == ((1, 0.5),)
    (found,) = unpack(pack([history]))
    assert found[0].activations[0].pairs == ()
    monkeypatch.delitem(snapshot.KINDS, "activations")  # a version that has no such records
    assert unpack(packed)[0][0].weighted


def vars_of(record):
    return {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}


def test_each_snapshot_is_packed_once(history, monkeypatch):
    made = []
    block = Reference.block
    monkeypatch.setattr(Reference, "block", lambda self, records: made.append(1) or block(self, records))
    new = [dataclasses.replace(s) for s in history]
    pack([new[:30], new[:20:2]])
    assert len(made) == 30
    new[-1] = dataclasses.replace(new[-1], validation_loss=0.5)
    last = pack([new, [new[3].light()], [dataclasses.replace(new[-1], ended=True)]])
    assert len(made) == 40
    whole, one, other = unpack(last)
    assert (one[0].weighted[0], other[0].weighted[0]) == (whole[3].weighted[0], whole[-1].weighted[0])
    assert pack([whole, one, other])["records"].equal(last["records"])  # nor is what was restored packed again
    assert len(made) == 40


def test_layers_that_come_and_go_and_change_their_order(history):
    def turned(snapshot, layers):
        return dataclasses.replace(snapshot, weighted=tuple(snapshot.weighted[i] for i in layers))

    of_steps = [[2, 0], [0, 1, 2], [], [4, 3, 2, 1, 0], [3]]
    wanted = [turned(snapshot, layers) for snapshot, layers in zip(history, of_steps, strict=False)]
    wanted[3] = dataclasses.replace(wanted[3], weighted=(*wanted[3].weighted, wanted[3].weighted[0]))  # twice
    (found,) = unpack(pack([wanted]))
    assert [near(one.to_dict(), other.to_dict()) for one, other in zip(wanted, found, strict=True)] == [True] * 5


def test_the_layout_of_version_2_is_read():
    stored = json.loads((Path(__file__).parent / "packed_version_2.json").read_text())
    packed = {key: part if key == "version" else tensor(part) for key, part in stored["packed"].items()}
    long, short = unpack(packed)
    wanted = [Snapshot.from_dict(each).to_dict() for each in stored["snapshots"]]  # with what came since
    assert [s.to_dict() for s in long] == wanted
    assert [s.step for s in short] == [0, 1]
    assert near([s.to_dict() for s in unpack(pack([long]))[0]], wanted)  # saved anew, as of this version


def tensor(part):
    return torch.frombuffer(bytearray(base64.b64decode(part)), dtype=torch.uint8)


def test_a_layout_of_another_version_is_refused(history):
    with pytest.raises(ValueError, match="its layout has the version 7, known here are 2 and 3"):
        unpack({**pack([history[:1]]), "version": 7})


def test_nothing_is_packed_too():
    assert unpack(pack([[], []])) == [[], []]
    assert unpack(pack([])) == []
