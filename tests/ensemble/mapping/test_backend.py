"""Which backend is taken, and that trying them leaves nothing behind."""

import pytest
import torch

from lightning_tricks.ensemble import BaggingEnsemble, BootstrapDataModule
from lightning_tricks.ensemble.mapping import backend
from lightning_tricks.ensemble.mapping.stack import Stack
from tests.ensemble.trainings import Plain, Rich, data, difference, fit, network, trainer


@pytest.mark.parametrize(("seconds", "name"), [((1.0, 2.0), "vmap"), ((2.0, 1.0), "loop")])
def test_the_faster_one_is_kept(monkeypatch, seconds, name):
    monkeypatch.setattr(backend.BackendBenchmark, "seconds", lambda self: seconds)
    ensemble, _ = fit(Plain)
    assert ensemble.used_backend == name
    assert "1000.00 ms" in ensemble.reason


def test_trying_changes_neither_members_nor_random_numbers():
    members = [Rich(network(0.3)) for _ in range(3)]
    before = [{name: value.clone() for name, value in member.state_dict().items()} for member in members]
    x, y = data(12).tensors
    batch = (x.view(3, 4, 6), y.view(3, 4))
    state = torch.get_rng_state()
    run = trainer()
    stack = Stack(members)
    benchmark = backend.BackendBenchmark(stack, [0, 1, 2], batch, 0, run)
    assert benchmark.why_not_mapped() is None
    assert benchmark.batched_is_right()
    mapped, looped = benchmark.seconds()
    assert 0 < mapped < float("inf")
    assert 0 < looped < float("inf")
    assert torch.equal(state, torch.get_rng_state())
    assert all(value.grad is None for value in stack.parameters.values())
    for member, old in zip(members, before, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in member.state_dict().items())
        assert all(value.grad is None for value in member.parameters())
        assert member.accuracy.update_count == 0


def test_an_error_of_the_member_is_the_members():
    class Broken(Plain):
        def training_step(self, batch, batch_idx):
            raise KeyError("no such thing")

    ensemble = BaggingEnsemble(Broken, 2, task="classification")
    with pytest.warns(UserWarning, match="no such thing"), pytest.raises(KeyError, match="no such thing"):
        trainer().fit(ensemble, BootstrapDataModule(data(), 2))


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_skipped_steps():
    class Skipping(Plain):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

    one, two = (fit(Skipping, name)[0] for name in ("vmap", "loop"))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-10)


def test_choosing_a_backend_leaves_no_trace():
    auto = fit(lambda: Plain(network(0.3)), "auto")[0]
    fixed = fit(lambda: Plain(network(0.3)), auto.used_backend)[0]
    assert difference(auto.networks, fixed.networks) == 0.0
    assert "ms mapped" in auto.reason
