"""What watch returns: findings are told once, validation losses, states, blocks and being let go."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import warnings
import weakref

import pytest
import torch
from torch import nn

import lightning_tricks as lt
from tests.watch.loops import left_behind, network, quiet, sgd, train


def dead() -> nn.Module:
    net = network()
    nn.init.constant_(net[0].bias, -100.0)
    return net


def test_a_finding_is_told_once_when_it_is_found_and_shown_at_the_end(capsys):
    net = dead()
    optimizer = sgd(net)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with lt.watch(net, optimizer, every_n_steps=1) as doctor:
            train(net, optimizer, 20)
            assert [str(w.message) for w in told if "dead" in str(w.message)]
            before = len(told)
            train(net, optimizer, 20)
    assert len(told) == before
    assert doctor.diagnosis.state == "sick"
    assert doctor.diagnosis.findings[0].layer == "1"
    assert "Sick: " in capsys.readouterr().out


def test_it_tells_what_the_trainers_doctor_tells():
    """The same steps, looked at by hand."""
    net = dead()
    optimizer = sgd(net)
    with quiet(net, optimizer, preflight=False, every_n_steps=1) as doctor:
        train(net, optimizer, 8)
    assert doctor.diagnosis.findings
    judged = lt.diagnose(doctor.history)
    assert [(f.problem, f.layer, f.severity) for f in doctor.diagnosis.findings] == [
        (f.problem, f.layer, f.severity) for f in judged.findings
    ]


def test_raise_comes_out_of_the_optimisers_step():
    net = dead()
    optimizer = sgd(net)
    with pytest.raises(lt.TrainingProblemError) as caught:
        with quiet(net, optimizer, on_problem="raise", every_n_steps=1):
            train(net, optimizer, 20)
    assert caught.value.finding.layer == "1"
    assert left_behind(net, optimizer) == []


def test_stop_is_for_the_loop_to_ask():
    net = dead()
    optimizer = sgd(net)
    doctor = quiet(net, optimizer, on_problem="stop", every_n_steps=1)
    assert not doctor.should_stop
    with pytest.warns(UserWarning, match="dead"):
        train(net, optimizer, 20)
    assert doctor.should_stop
    doctor.close()


def test_a_healthy_loop_is_left_in_peace(recwarn):
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    with lt.watch(net, optimizer, report=False) as doctor:
        train(net, optimizer, 60)
    assert doctor.diagnosis.state == "healthy"
    assert [str(w.message) for w in recwarn] == []


def test_validation_losses_are_kept_with_the_latest_look():
    net = network()
    optimizer = sgd(net)
    with quiet(net, optimizer) as doctor:
        doctor.validated(3.0)  # before any look
        train(net, optimizer, 1)
        doctor.validated(torch.tensor(1.5))
        train(net, optimizer, 1)
    assert [snapshot.validation_loss for snapshot in doctor.history] == [1.5, 1.5]


@pytest.mark.parametrize("loss", ["1.0", None, torch.zeros(2), True, [1.0]])
def test_a_validation_loss_is_a_number(loss):
    net = network()
    with quiet(net, sgd(net)) as doctor, pytest.raises(TypeError, match="is a number"):
        doctor.validated(loss)


def test_each_validation_stands_with_its_look():
    net = network()
    optimizer = sgd(net, 1e-2)
    with quiet(net, optimizer, every_n_steps=4) as doctor:
        for number in range(40):
            train(net, optimizer, 4)
            doctor.validated(1.0 if number < 4 else 1.0 + 0.2 * number)
    losses = {snapshot.validation_loss for snapshot in doctor.history}
    assert len(losses) > 30
    assert max(losses) == pytest.approx(1.0 + 0.2 * 39)


def test_a_state_goes_on_where_it_was_saved():
    net = network()
    optimizer = sgd(net)
    with quiet(net, optimizer, every_n_steps=4) as doctor:
        train(net, optimizer, 10)
        state = doctor.state_dict()
        train(net, optimizer, 10)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    again = network()
    optimizer = sgd(again)
    with quiet(again, optimizer, every_n_steps=4) as resumed:
        resumed.load_state_dict(torch.load(file, weights_only=True))
        assert resumed.step == 10
        assert [s.step for s in resumed.history] == [0, 1, 2, 4, 8]
        train(again, optimizer, 10)
    assert [s.step for s in resumed.history] == [s.step for s in doctor.history]
    assert [s.loss for s in resumed.history[:5]] == pytest.approx([s.loss for s in doctor.history[:5]])
    assert len(resumed.history[5].recent_losses) == len(doctor.history[5].recent_losses)


def test_what_was_told_is_not_told_again_after_a_restart():
    net = dead()
    optimizer = sgd(net)
    doctor = lt.watch(net, optimizer, report=False, every_n_steps=1)
    with pytest.warns(UserWarning, match="dead"):
        train(net, optimizer, 20)
    state = doctor.state_dict()
    doctor.close()
    with lt.watch(net, optimizer, report=False, every_n_steps=1) as resumed, warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed.load_state_dict(state)
        train(net, optimizer, 40)
    assert resumed.diagnosis.state == "sick"


@pytest.mark.parametrize("state", [{}, {"histories": 3}, {"step": "x", "histories": None}])
def test_a_damaged_state_begins_anew(state):
    net = network()
    optimizer = sgd(net)
    doctor = quiet(net, optimizer)
    train(net, optimizer, 3)
    with pytest.warns(UserWarning, match="cannot be read"):
        doctor.load_state_dict(state)
    assert doctor.history == []
    assert doctor.step == 0
    train(net, optimizer, 2)
    assert len(doctor.history) == 2
    doctor.close()


def test_it_goes_on_in_a_second_block():
    net = network()
    optimizer = sgd(net)
    with quiet(net, optimizer) as doctor:
        train(net, optimizer, 2)
    assert doctor.history[-1].ended
    train(net, optimizer, 3)  # nobody looks
    with doctor:
        assert not doctor.history[-1].ended
        train(net, optimizer, 3)
    assert doctor.step == 5
    assert [s.step for s in doctor.history] == [0, 1, 2, 4]
    assert [s.ended for s in doctor.history] == [False, False, False, True]
    assert left_behind(net, optimizer) == []


def test_a_block_inside_of_its_own_is_an_error():
    net = network()
    with quiet(net, sgd(net)) as doctor, pytest.raises(RuntimeError, match="watching already"):
        doctor.__enter__()


def test_a_second_doctor_takes_the_place_of_the_first():
    net = network()
    optimizer = sgd(net)
    first = quiet(net, optimizer)
    train(net, optimizer, 2)
    second = quiet(net, optimizer)
    train(net, optimizer, 2)
    first.close()
    assert [first.step, second.step] == [2, 2]
    second.close()
    assert left_behind(net, optimizer) == []


def test_closing_twice_prints_once(capsys):
    net = network()
    optimizer = sgd(net)
    doctor = lt.watch(net, optimizer)
    train(net, optimizer, 2)
    doctor.close()
    doctor.close()
    assert capsys.readouterr().out.count("Healthy so far") == 1


def test_a_doctor_that_nobody_holds_is_detached_amid_a_step():
    net = network()
    optimizer = sgd(net)
    doctor = quiet(net, optimizer)
    train(net, optimizer, 1)
    net(torch.randn(4, 6))  # a look has begun
    assert left_behind(net, optimizer)
    del doctor
    assert left_behind(net, optimizer) == []


def test_a_doctor_that_was_not_kept_says_so():
    net = network()
    optimizer = sgd(net)
    with pytest.warns(UserWarning, match="was not kept"):
        lt.watch(net, optimizer)
    assert left_behind(net, optimizer) == []


def test_it_holds_nothing_that_the_loop_has_let_go():
    net = network()
    optimizer = sgd(net)
    doctor = quiet(net, optimizer)
    train(net, optimizer, 3)
    doctor.close()
    gone = weakref.ref(net), weakref.ref(optimizer), weakref.ref(doctor)
    del net, optimizer, doctor
    gc.collect()
    assert [each() for each in gone] == [None, None, None]


def test_the_model_is_copied_and_pickled_as_if_nobody_watched():
    net = network()
    optimizer = sgd(net)
    with quiet(net, optimizer):
        train(net, optimizer, 1)  # the next step is to be looked at
        other = copy.deepcopy(net)
        pickle.loads(pickle.dumps((net, optimizer)))
    assert left_behind(other) == []


def test_it_is_for_one_process_to_tell(monkeypatch, capsys):
    monkeypatch.setattr("lightning_tricks.model.processes.dist.is_initialized", lambda: True)
    monkeypatch.setattr("lightning_tricks.model.processes.dist.get_rank", lambda: 1)
    monkeypatch.setattr("lightning_tricks.model.processes.dist.get_world_size", lambda: 2)
    net = dead()
    optimizer = sgd(net)
    with lt.watch(net, optimizer, every_n_steps=1) as doctor:  # warnings are errors here
        train(net, optimizer, 20)
    assert doctor.diagnosis.state == "sick"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": 3}, TypeError, "model"),
        ({"optimizer": torch.optim.SGD}, TypeError, "call it"),
        ({"optimizer": None}, TypeError, "optimizer must be"),
        ({"optimizer": []}, TypeError, "optimizer must be"),
        ({"optimizer": sgd(network())}, ValueError, "holds no parameter"),
        ({"every_n_steps": 0}, ValueError, "every_n_steps"),
        ({"every_n_steps": None}, ValueError, "every_n_steps"),
        ({"max_patterns": 0}, ValueError, "max_patterns"),
        ({"on_problem": "shout"}, ValueError, "on_problem"),
        ({"ignore": ("dead_unit",)}, ValueError, "did you mean"),
        ({"layers": 3}, ValueError, "layers"),
    ],
)
def test_mistakes_are_told_at_once_and_leave_nothing_behind(arguments, error, message):
    net = network()
    given = {"model": net, "optimizer": sgd(net), **arguments}
    with pytest.raises(error, match=message):
        lt.watch(**given)
    assert left_behind(net) == []


def test_layers_are_what_is_shown():
    net = network()
    optimizer = sgd(net)
    with quiet(net, optimizer, layers="3") as doctor:
        train(net, optimizer, 2)
    assert doctor.diagnosis.layers == ("3",)
    with pytest.warns(UserWarning, match="no layer matches"), quiet(net, optimizer, layers="encoder.*"):
        train(net, optimizer, 2)


def test_it_writes_its_history(tmp_path):
    net = network()
    optimizer = sgd(net)
    with quiet(net, optimizer) as doctor:
        train(net, optimizer, 2)
    assert len(doctor.to_csv(tmp_path / "history.csv").read_text().splitlines()) > 20


def test_it_writes_its_folder_at_the_end(tmp_path):
    net = network()
    optimizer = sgd(net)
    with quiet(net, optimizer, files=tmp_path / "run") as doctor:
        train(net, optimizer, 2)
        assert not (tmp_path / "run").exists()
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"diagnosis.html", "history.csv"} <= written
    assert doctor.diagnosis.verdict.partition(": ")[2][1:] in (tmp_path / "run" / "diagnosis.html").read_text()
    assert doctor.to_html(tmp_path / "page.html").exists()


def test_a_folder_that_cannot_be_written_ends_no_loop(tmp_path):
    (tmp_path / "taken").write_text("a file where the folder is to be")
    net = network()
    optimizer = sgd(net)
    with pytest.warns(UserWarning, match=r"lt.watch cannot write to .*taken.*(Not a directory|File exists)"):
        with quiet(net, optimizer, files=tmp_path / "taken") as doctor:
            train(net, optimizer, 2)
    assert len(doctor.history) == 2
