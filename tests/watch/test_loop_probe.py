"""Any loop is looked at by its own schedule, bit for bit as without, and left as it was."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import lightning_tricks as lt
from tests.versions import TORCH
from tests.watch.loops import backward, batch, left_behind, network, quiet, sgd, train


def plain(net, optimizer, steps=9):
    return train(net, optimizer, steps)


def accumulating(net, optimizer, steps=5):
    losses = []
    for _ in range(steps):
        losses.append(float(backward(net, 2)) + float(backward(net, 2)))
        optimizer.step()
        optimizer.zero_grad()
    return losses


def with_closure(net, optimizer, steps=4):
    def closure():
        optimizer.zero_grad()
        return backward(net)

    return [float(optimizer.step(closure)) for _ in range(steps)]


def scaled(net, optimizer, steps=5):
    scaler, losses = torch.amp.GradScaler("cpu", init_scale=1024.0), []
    for _ in range(steps):
        optimizer.zero_grad()
        x, y = batch()
        loss = F.cross_entropy(net(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(loss.detach()))
    return losses


def validating(net, optimizer, steps=5):
    losses = []
    for _ in range(steps):
        net.eval()
        with torch.no_grad():
            net(torch.full((4, 6), 1e3))
        net(torch.full((4, 6), 1e3))  # and without no_grad
        net.train()
        losses += train(net, optimizer, 1)
    return losses


class Checkpointed(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.stem, self.net = nn.Linear(6, 6), net

    def forward(self, x):
        return checkpoint(self.net, self.stem(x), use_reentrant=True)


def checkpointed(net, optimizer, steps=4):
    return train(net, optimizer, steps)


def by_parts(net, optimizer, steps=4):
    """Never calls the model itself."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        x, y = batch()
        for layer in net:
            x = layer(x)
        loss = F.cross_entropy(x, y)
        torch.autograd.backward([loss])
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


LOOPS = [plain, accumulating, with_closure, scaled, validating, checkpointed, by_parts]


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("loop", LOOPS)
def test_every_loop_is_the_same_with_and_without(loop, every):
    ends = []
    for watched in (False, True):
        net = Checkpointed(network()) if loop is checkpointed else network()
        optimizer = torch.optim.LBFGS(net.parameters(), max_iter=3) if loop is with_closure else sgd(net)
        doctor = quiet(net, optimizer, every_n_steps=every) if watched else None
        losses = loop(net, optimizer)
        if doctor is not None:
            doctor.close()
            assert len(doctor.history) >= 3
            assert not doctor.errors.failed
            assert left_behind(net, optimizer) == []
        ends.append((losses, copy.deepcopy(net.state_dict()), torch.get_rng_state(), optimizer.state_dict()["state"]))
    (losses, weights, random, state), (others, other_weights, other_random, other_state) = ends
    assert losses == others
    assert torch.equal(random, other_random)
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    assert str(state) == str(other_state)


@pytest.mark.parametrize("loop", [plain, accumulating, scaled, validating, by_parts])
def test_losses_between_looks_are_those_of_the_loop(loop):
    if loop is by_parts and TORCH < (2, 7):
        pytest.skip("torch 2.6 tells nobody of autograd.backward with a list of losses")
    net = network()
    optimizer = sgd(net)
    doctor = quiet(net, optimizer, every_n_steps=100)
    losses = loop(net, optimizer)
    doctor.close()
    seen = [loss for snapshot in doctor.history for loss in snapshot.recent_losses]
    assert doctor.step == len(losses)
    assert seen == pytest.approx(losses[: len(seen)], rel=1e-5)
    assert [s.loss for s in doctor.history] == pytest.approx([losses[s.step] for s in doctor.history], rel=1e-5)


def test_looks_are_made_at_the_doctors_steps():
    net = network()
    optimizer = sgd(net)
    with quiet(net, optimizer, every_n_steps=5) as doctor:
        train(net, optimizer, 17)
    assert [snapshot.step for snapshot in doctor.history] == [0, 1, 2, 4, 5, 10, 15]


def test_a_look_sees_what_a_probe_sees():
    net = network()
    optimizer = sgd(net)
    with quiet(net, optimizer, preflight=False) as doctor:
        train(net, optimizer, 1)
    net = network()
    optimizer = sgd(net)
    with lt.probe(net, optimizer) as p:
        train(net, optimizer, 1)
    seen, wanted = doctor.history[0].to_dict(), p.snapshot().to_dict()
    for part in ("activations", "weighted", "parameters", "losses", "training", "not_seen"):
        assert seen[part] == wanted[part], part


def test_a_validation_between_two_steps_is_not_seen():
    net = network()
    optimizer = sgd(net)
    with quiet(net, optimizer) as doctor:
        validating(net, optimizer, 3)
    assert all(abs(record.mean) < 10 for snapshot in doctor.history for record in snapshot.activations)
    assert {record.patterns for snapshot in doctor.history[1:] for record in snapshot.activations} == {16}


def test_a_scale_is_taken_off_also_of_the_error_signals():
    signals = []
    for loop in (plain, scaled):
        net = network()
        optimizer = sgd(net)
        with quiet(net, optimizer) as doctor:
            loop(net, optimizer, 1)
        signals.append([record.error_signal for record in doctor.history[0].weighted])
    assert signals[0] == pytest.approx(signals[1], rel=1e-4)


def test_a_step_that_a_scaler_left_out_is_none():
    net = network()
    optimizer, scaler = sgd(net), torch.amp.GradScaler("cpu", init_scale=1024.0)
    with quiet(net, optimizer, preflight=False) as doctor:
        for number in range(4):
            x, y = batch()
            loss = F.cross_entropy(net(x), y) * (float("inf") if number == 0 else 1.0)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert doctor.step == 3
    assert [snapshot.step for snapshot in doctor.history] == [1, 2]  # the look at 0 was given up
    assert all(0.1 < snapshot.loss < 10 for snapshot in doctor.history)


def test_two_optimisers_make_one_step():
    body, head = nn.Linear(6, 8), nn.Linear(8, 3)
    net = nn.Sequential(body, nn.ReLU(), head)
    optimizers = [sgd(body), sgd(head)]
    with quiet(net, optimizers) as doctor:
        for _ in range(3):
            net.zero_grad()
            backward(net)
            for optimizer in optimizers:
                optimizer.step()
    assert doctor.step == 3
    assert all(record.update_ratio > 0 for snapshot in doctor.history for record in snapshot.parameters)
    assert left_behind(net, *optimizers) == []


def test_one_of_two_optimisers_may_step_more_often():
    net = nn.ModuleDict({"body": nn.Linear(6, 8), "head": nn.Linear(8, 3)})
    often, seldom = sgd(net["body"]), sgd(net["head"])
    with quiet(net, [often, seldom]) as doctor:
        for number in range(9):
            x, y = batch()
            F.cross_entropy(net["head"](net["body"](x).relu()), y).backward()
            often.step()
            if number % 3 == 2:
                seldom.step()
            net.zero_grad()
    assert doctor.step == 9
    assert not doctor.errors.failed


def test_only_the_loss_that_leads_to_the_step_counts():
    """Of two networks that are trained in turn, each doctor hears its own."""
    first, second = network(), network()
    one, other = sgd(first), sgd(second)
    doctor = quiet(first, one, every_n_steps=1)
    losses = []
    for _ in range(4):
        losses += train(first, one, 1)
        train(second, other, 1)
    doctor.close()
    assert [snapshot.loss for snapshot in doctor.history] == pytest.approx(losses)
    assert [loss for snapshot in doctor.history for loss in snapshot.recent_losses] == pytest.approx(losses)


def test_a_discriminator_is_looked_at_in_its_own_step():
    """The generator's gradients reach it too, and are cleared before its own."""
    judge, maker = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)), nn.Linear(6, 6)
    own, other = sgd(judge), sgd(maker)
    losses = []
    with quiet(judge, own, preflight=False, every_n_steps=1) as doctor:
        for _ in range(4):
            own.zero_grad()
            loss = judge(torch.randn(16, 6)).sigmoid().mean()
            loss.backward()
            own.step()
            losses.append(float(loss.detach()))
            other.zero_grad()
            judge(maker(torch.randn(5, 6))).square().mean().backward()
            other.step()
    assert [snapshot.loss for snapshot in doctor.history] == pytest.approx(losses)
    assert {record.patterns for snapshot in doctor.history for record in snapshot.activations} == {16}


def test_optimisers_that_step_inside_of_the_backward_pass():
    net = network()
    optimizers = {parameter: torch.optim.SGD([parameter], 0.1) for parameter in net.parameters()}

    def step(parameter):
        optimizers[parameter].step()
        parameter.grad = None

    for parameter in net.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    with quiet(net, list(optimizers.values())) as doctor:
        losses = [float(backward(net)) for _ in range(4)]
    assert doctor.step == 4
    assert [snapshot.loss for snapshot in doctor.history] == pytest.approx(losses[:3])
    assert all(record.update_ratio > 0 for record in doctor.history[0].parameters)


@pytest.mark.parametrize("where", ["forward", "step"])
def test_an_exception_leaves_nothing_behind(where):
    net = network()
    optimizer = sgd(net)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        with quiet(net, optimizer) as doctor:
            train(net, optimizer, 1)
            net(batch()[0])
            if where == "step":
                backward(net)
            1 / 0  # noqa: B018
    assert left_behind(net, optimizer) == []
    assert len(doctor.history) == 1
    assert not doctor.history[-1].ended


def test_an_error_of_the_doctor_ends_its_looking_only(monkeypatch):
    net = network()
    optimizer = sgd(net)
    monkeypatch.setattr("lightning_tricks.probes.Probe.snapshot", lambda self: 1 / 0)
    doctor = quiet(net, optimizer)
    with pytest.warns(UserWarning, match="lt.watch stopped, the training goes on: ZeroDivisionError"):
        train(net, optimizer, 3)
    assert doctor.history == []
    doctor.close()
    assert left_behind(net, optimizer) == []


def test_between_looks_two_hooks_lie_on_the_optimiser_and_nothing_elsewhere():
    net = network()
    optimizer = sgd(net)
    doctor = quiet(net, optimizer, every_n_steps=8)
    train(net, optimizer, 3)  # the next look is at step 4
    assert left_behind(net, optimizer) == ["step pre 0", "step post 0", "backward"]
    assert [len(optimizer._optimizer_step_pre_hooks), len(optimizer._optimizer_step_post_hooks)] == [1, 1]
    doctor.close()


def test_a_compiled_model_is_looked_at():
    net = network()
    compiled = torch.compile(net, backend="eager")
    optimizer = sgd(net)
    with quiet(compiled, optimizer) as doctor:
        train(compiled, optimizer, 3)
    assert [record.name for record in doctor.history[0].weighted] == ["0", "3", "5"]
    assert left_behind(net, optimizer) == []
    assert left_behind(compiled, optimizer) == []


def test_the_preflight_needs_no_loader_where_shapes_tell():
    net = network()
    optimizer = sgd(net)
    with quiet(net, optimizer) as doctor:
        train(net, optimizer, 1)
    assert doctor.history[0].preflight.patterns == 16
