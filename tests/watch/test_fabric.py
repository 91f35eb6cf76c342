"""A loop with Lightning Fabric."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric

from tests.watch.loops import batch, left_behind, network, quiet


def run(precision, watched, accumulate=1):
    net = network()
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    model, optimizer = fabric.setup(net, torch.optim.Adam(net.parameters(), 1e-2))
    doctor, losses = quiet(model, optimizer, every_n_steps=4) if watched else None, []
    for _ in range(9):
        total = 0.0
        for number in range(accumulate):
            x, y = batch()
            with fabric.no_backward_sync(model, enabled=number < accumulate - 1):
                loss = F.cross_entropy(model(x).float(), y) / accumulate
                fabric.backward(loss)
            total += float(loss.detach())
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    if doctor is not None:
        doctor.close()
    return losses, net, optimizer.optimizer, doctor


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_it_is_the_same_and_is_seen(precision, accumulate):
    plain, net, _, _ = run(precision, False, accumulate)
    losses, watched, optimizer, doctor = run(precision, True, accumulate)
    assert losses == plain
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), watched.parameters(), strict=True))
    assert doctor.step == 9
    assert [snapshot.step for snapshot in doctor.history] == [0, 1, 2, 4, 8]
    assert [record.name for record in doctor.history[0].weighted] == ["0", "3", "5"]
    seen = [loss for snapshot in doctor.history for loss in snapshot.recent_losses]
    assert seen == pytest.approx(losses, rel=1e-4)
    assert [s.loss for s in doctor.history] == pytest.approx([losses[s.step] for s in doctor.history], rel=1e-4)
    assert all(record.update_ratio > 0 for record in doctor.history[0].parameters)
    assert left_behind(watched, optimizer) == []
