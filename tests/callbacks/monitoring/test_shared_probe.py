"""Which steps are probed, by one probe for all monitors; and what is seen does not depend on how a batch came."""

import math

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

import lightning_tricks as lt
from lightning_tricks.callbacks.monitoring import shared_probe
from tests.callbacks.trainings import (
    AccumulatesByHand,
    Classifier,
    Gan,
    Skipping,
    batches,
    fit,
    lbfgs,
    monitors,
)


def steps(monitor):
    return [snapshot.step for snapshot in monitor.history]


def plain():
    """No dropout, so that a batch may be cut to pieces."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3))


@pytest.fixture
def opened(monkeypatch):
    """Counts the probes that are opened."""
    count = []
    real = shared_probe.Probe.open
    monkeypatch.setattr(shared_probe.Probe, "open", lambda probe: count.append(probe.step) or real(probe))
    return count


@pytest.mark.parametrize(("make", "options", "number"), [
    (Classifier, {}, 23),
    (Classifier, {"accumulate_grad_batches": 3}, 23 * 3 - 1),  # the last window is cut short
    (Gan, {}, 23),
    (lambda: Classifier(optimizer=lbfgs), {}, 23),
])  # fmt: skip
def test_powers_of_two_then_multiples(make, options, number, opened):
    looking = monitors(every_n_steps=10)
    fit(make(), looking, batches(number, size=2), **options)
    for monitor in looking:
        assert steps(monitor) == [0, 1, 2, 4, 8, 10, 20]
    assert opened == [0, 1, 2, 4, 8, 10, 20]  # one probe for three monitors


def test_steps_go_on_over_epochs():
    monitor = lt.ActivationMonitor(every_n_steps=5)
    fit(Classifier(), [monitor], batches(4), max_epochs=3)
    assert steps(monitor) == [0, 1, 2, 4, 5, 10]


def test_default_is_the_trainers_own_cadence():
    monitor = lt.GradientFlowMonitor()
    fit(Classifier(), [monitor], batches(9), log_every_n_steps=3)
    assert steps(monitor) == [0, 1, 2, 3, 6]


def test_each_monitor_has_its_own_arguments(opened):
    first = lt.ActivationMonitor(every_n_steps=4, layers="net.0*")
    second = lt.ActivationMonitor(every_n_steps=3, layers=["net.1", "net.4"], max_patterns=None)
    third = lt.GradientFlowMonitor(every_n_steps=5, max_patterns=2)
    fit(Classifier(), [first, second, third], batches(7))
    assert steps(first) == [0, 1, 2, 4]
    assert steps(second) == [0, 1, 2, 3, 6]
    assert steps(third) == [0, 1, 2, 4, 5]
    assert opened == [0, 1, 2, 3, 4, 5, 6]
    assert {r.name for s in first.history for r in (*s.activations, *s.weighted)} == {"net.0"}
    assert {r.name for s in first.history for r in s.parameters} == {"net.0.weight", "net.0.bias"}
    assert {r.name for s in second.history for r in (*s.activations, *s.weighted)} == {"net.1", "net.4"}
    assert third.history[0].weighted[0].patterns == 8  # step 0: as many as the one who asks for most
    assert third.history[-1].weighted[0].patterns == 2  # step 5: nobody else asks


def test_globs_that_match_nothing_are_told():
    monitor = lt.ActivationMonitor(every_n_steps=1, layers="encoder.*")
    with pytest.warns(
        UserWarning, match=r"no layer matches layers='encoder\.\*'; those with .* net\.0, net\.3, net\.5"
    ) as told:
        fit(Classifier(), [monitor])
    assert len([warning for warning in told if "no layer" in str(warning.message)]) == 1


def one_step(data, *, make=plain, **options):
    monitor = lt.GradientFlowMonitor(every_n_steps=1, max_patterns=None)
    module = Classifier(make(), optimizer=options.pop("optimizer", torch.optim.SGD))
    fit(module, [monitor], data, **options)
    return monitor.history[0]


def values(snapshot, *fields):
    return {
        (type(record).__name__, record.name, field): getattr(record, field)
        for record in (*snapshot.activations, *snapshot.weighted, *snapshot.parameters)
        for field in fields
        if not math.isnan(getattr(record, field, math.nan))
    }


MEASURES = (
    "mean", "std", "linearity", "mean_energy", "error_signal", "transmission", "gradient", "update", "update_ratio",
    "update_coherence", "mean_drift", "input_mean", "input_std", "patterns",
)  # fmt: skip


def test_accumulation_equals_the_joint_batch():
    parts = batches(4)
    joint = tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))
    accumulated = one_step(parts, accumulate_grad_batches=4)
    whole = one_step([joint])
    assert accumulated.loss == pytest.approx(whole.loss, abs=1e-6)
    assert values(accumulated, *MEASURES) == pytest.approx(values(whole, *MEASURES), rel=1e-4, abs=1e-6)
    assert values(accumulated, "gradient", "error_signal") == pytest.approx(
        values(whole, "gradient", "error_signal"), rel=1e-5
    )


def test_accumulation_by_hand_equals_the_joint_batch():
    parts = batches(3)
    monitor = lt.GradientFlowMonitor(every_n_steps=1, max_patterns=None)
    module = AccumulatesByHand()
    module.net, module.optimizer = plain(), torch.optim.SGD
    fit(module, [monitor], parts)
    whole = one_step([tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))])
    assert len(monitor.history) == 1
    assert values(monitor.history[0], *MEASURES) == pytest.approx(values(whole, *MEASURES), rel=1e-4, abs=1e-6)


def test_validation_amid_accumulation_is_not_seen():
    class Validated(Classifier):
        def validation_step(self, batch, batch_idx):
            self.loss((100 * batch[0], batch[1]))

    looking = lt.GradientFlowMonitor(every_n_steps=1, max_patterns=None)
    options = {"accumulate_grad_batches": 4, "validation": batches(2), "val_check_interval": 1}
    fit(Validated(plain(), torch.optim.SGD), [looking], batches(4), num_sanity_val_steps=2, **options)
    whole = one_step(batches(4), accumulate_grad_batches=4)
    assert steps(looking) == [0]
    assert looking.history[0].to_dict() == whole.to_dict()


class Scaled(MixedPrecision):
    """The loss scaler of mixed precision, without the mixed precision."""

    def __init__(self, scale=1024.0):
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2))

    def autocast_context_manager(self):
        return torch.autocast("cpu", enabled=False)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_loss_scale_is_taken_out(optimizer):
    plain_step = one_step(batches(1), optimizer=optimizer)
    scaled = one_step(batches(1), optimizer=optimizer, plugins=[Scaled()])
    assert scaled.loss_scale == 1024.0  # also at the first step, when the scaler has not made its tensor yet
    assert scaled.loss == pytest.approx(plain_step.loss, rel=1e-6)
    assert values(scaled, *MEASURES) == pytest.approx(values(plain_step, *MEASURES), rel=1e-5, abs=1e-9)


def test_loss_scale_of_optimizers_that_unscale_themselves():
    def fused(parameters, lr):
        return torch.optim.Adam(parameters, lr=lr, fused=True)

    scaled = one_step(batches(1), optimizer=fused, plugins=[Scaled()])
    plain_step = one_step(batches(1), optimizer=torch.optim.Adam)
    assert values(scaled, "gradient", "error_signal") == pytest.approx(
        values(plain_step, "gradient", "error_signal"), rel=1e-4
    )


def test_growing_loss_scale_is_followed():
    monitor = lt.GradientFlowMonitor(every_n_steps=1)
    fit(Classifier(plain()), [monitor], batches(5), plugins=[Scaled(2.0)])
    assert [snapshot.loss_scale for snapshot in monitor.history] == [2.0, 2.0, 4.0, 4.0, 8.0]


def test_gradients_are_read_before_clipping():
    clipped, free = one_step(batches(1), gradient_clip_val=1e-3), one_step(batches(1))
    assert values(clipped, "gradient") == pytest.approx(values(free, "gradient"))
    assert max(values(clipped, "update").values()) < 1e-2 * max(values(free, "update").values())


def test_line_search_counts_the_first_evaluation():
    snapshot = one_step(batches(1), optimizer=lbfgs)
    first = one_step(batches(1))
    assert [record.name for record in snapshot.weighted] == ["net.0", "net.2", "net.4"]
    assert not snapshot.not_seen
    assert snapshot.loss == pytest.approx(first.loss)
    assert values(snapshot, "gradient", "error_signal") == pytest.approx(values(first, "gradient", "error_signal"))
    assert all(record.update > 0 for record in snapshot.parameters)


def test_two_optimisers_by_hand():
    monitor = lt.GradientFlowMonitor(every_n_steps=1)
    fit(Gan(), [monitor], batches(2))
    names = [record.name for record in monitor.history[0].weighted]
    assert names == ["net.0", "net.2", "critic.0", "critic.3", "critic.0_2", "critic.3_2", "critic.0_3", "critic.3_3"]
    still = {record.name for record in monitor.history[0].parameters if not (record.update > 0 and record.gradient > 0)}
    assert still == {"critic.3.bias"}  # the loss of this GAN knows differences of scores only


def test_manual_optimisation_without_any_optimiser():
    class Hebbian(Classifier):
        def __init__(self):
            super().__init__(plain())
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            with torch.no_grad():
                self.net(batch[0])

        def configure_optimizers(self):
            return None

    monitor = lt.ActivationMonitor(every_n_steps=1)
    with pytest.warns(UserWarning, match="run with no optimizer"):
        fit(Hebbian(), [monitor], batches(3))
    assert steps(monitor) == [0, 1, 2]
    assert monitor.history[0].activations[0].patterns == 8


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_steps_without_a_loss_are_records_too():
    monitor = lt.GradientFlowMonitor(every_n_steps=1)
    fit(Skipping(), [monitor], batches(4))
    assert steps(monitor) == [0, 1, 2, 3]
    assert math.isnan(monitor.history[1].loss)
    assert not monitor.history[1].suspicious
    assert all(math.isnan(record.gradient) for record in monitor.history[1].parameters)


def test_an_epoch_cut_short_by_a_hook():
    class Cut(Classifier):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 else None

    monitor = lt.ActivationMonitor(every_n_steps=1)
    fit(Cut(), [monitor], batches(5), max_epochs=2)
    assert steps(monitor) == [0, 1, 2, 3]


class Joint(L.LightningModule):
    """For several processes: at module level, because it is sent to them."""

    def __init__(self):
        super().__init__()
        self.net = plain()

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        return self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_patterns_that_another_monitor_asks_for_are_said():
    looking = [lt.ActivationMonitor(every_n_steps=1, max_patterns=4), lt.TrainingDoctor(every_n_steps=1, report=False)]
    with pytest.warns(UserWarning, match=r"one asks for max_patterns=4096, all get as many \(asked for are 4, 4096\)"):
        fit(Classifier(), looking)
    assert looking[0].history[0].activations[0].patterns == 8
