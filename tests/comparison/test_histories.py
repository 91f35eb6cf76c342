"""A history is read out of whatever holds one; what does not is refused in words."""

from __future__ import annotations

import json

import pytest
import torch

import lightning_tricks as lt
from lightning_tricks.comparison import history_of
from tests.comparison.runs import run, trained


def measures(history):
    return {(s.step, r.name, type(r)): {k: v for k, v in r.measures().items() if v == v}
            for s in history for r in s.records()}  # fmt: skip


def test_a_table_gives_the_measures_back(tmp_path):
    doctor = trained(0)
    history = history_of(doctor.to_csv(tmp_path / "history.csv"))
    assert measures(history) == measures(doctor.history)
    assert [s.loss for s in history] == [s.loss for s in doctor.history]
    assert not lt.compare(history, doctor).partings


def test_json_and_checkpoints(tmp_path):
    doctor = trained(0)
    (tmp_path / "d.json").write_text(json.dumps(doctor.diagnosis.to_dict()))
    states = {"plain": doctor.state_dict(), "nested": {"model": {}, "doctor": doctor.state_dict()}}
    for name, state in states.items():
        torch.save(state, tmp_path / f"{name}.ckpt")
    steps = [snapshot.step for snapshot in doctor.history]
    for file in ("d.json", "plain.ckpt", "nested.ckpt"):
        assert [snapshot.step for snapshot in history_of(str(tmp_path / file))] == steps
    assert [snapshot.step for snapshot in history_of({"lightning_tricks": doctor.state_dict()})] == steps
    old = {"callbacks": {"TrainingDoctor{}": {"history": [s.to_dict() for s in doctor.history]}}}
    assert [snapshot.step for snapshot in history_of(old)] == steps


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"step,loss\n1,2\n", "no table of a history"),
        ("b.csv", b"step,kind,layer,function_or_operation,measure,value\n", "nothing was looked at"),
        ("c.csv", b"step,kind,layer,function_or_operation,measure,value\n0,model,,,loss,high\n", "line 2"),
        ("d.json", b"{", "no JSON"),
        ("e.json", b"[]", "no history"),
        ("f.ckpt", b"no archive", "no checkpoint"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        history_of(tmp_path / name)


def test_a_checkpoint_with_objects_is_not_run(tmp_path):
    torch.save({"hyper_parameters": run}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="If you trust"):
        history_of(tmp_path / "a.ckpt")


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match="a list of snapshots"):
        history_of(3)
    with pytest.raises(ValueError, match="no snapshot"):
        history_of([])
    with pytest.raises(ValueError, match="no history"):
        history_of({"state_dict": {}})
    with pytest.raises(FileNotFoundError, match="there is no file"):
        history_of("nowhere.ckpt")
