"""Steps that are mapped, and those that cannot be: the loop trains the same, and says why."""

import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.ensemble.trainings import DOUBLE, Plain, Rich, Smooth, data, difference, fit, network, separate

NOT_MAPPED = "is trained by the loop over members"


class Recurrent(Plain):
    def __init__(self):
        super().__init__(nn.Identity())
        self.lstm, self.head = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 3)
        self.double()

    def forward(self, x):
        return self.head(self.lstm(x.view(-1, 3, 2))[0][:, -1])


class Branching(Smooth):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * 2 if loss.item() > 1.0 else loss


class WeightNormed(Plain):
    def __init__(self):
        net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.Tanh(), nn.Linear(8, 3))
        super().__init__(net.double())


class OldWeightNorm(Plain):
    """Its weight is computed in a hook, and cannot be copied while it has a history."""

    def __init__(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's: it is old
            layer = nn.utils.weight_norm(nn.Linear(6, 8))
        super().__init__(nn.Sequential(layer, nn.Tanh(), nn.Linear(8, 3)).double())


class OldSpectralNorm(Plain):
    def __init__(self):
        layer = nn.utils.spectral_norm(nn.Linear(6, 8))
        super().__init__(nn.Sequential(layer, nn.Tanh(), nn.Linear(8, 3)).double())


class Locked(Smooth):
    """Holds what cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Reassigning(Smooth):
    def __init__(self):
        super().__init__()
        self.register_buffer("level", torch.zeros((), dtype=DOUBLE))

    def forward(self, x):
        if self.training:
            self.level = 0.9 * self.level + 0.1 * x.mean().detach()
        return self.net(x) + self.level * torch.arange(3)


class Keeping(Smooth):
    def __init__(self):
        super().__init__()
        self.losses = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.detach())
        return loss


class Unequal(Smooth):
    """Each member drops another share, which is no weight (p is drawn with the member)."""

    def __init__(self):
        super().__init__()
        self.slope = float(torch.rand(()))

    def forward(self, x):
        return F.leaky_relu(self.net(x), self.slope)


class UnequalRates(Smooth):
    def __init__(self):
        super().__init__()
        self.rate = 0.05 + 0.1 * float(torch.rand(()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)


class Arithmetic(Rich):
    """Computes with what a metric returned."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        return F.cross_entropy(logits, y) * (1 + self.accuracy(logits, y))


class CountingSteps(Smooth):
    """Its loss depends on how often it was called; the count is an attribute of each member."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def training_step(self, batch, batch_idx):
        self.calls += 1
        return super().training_step(batch, batch_idx) / self.calls


CAUSES = {
    CountingSteps: "it changes attribute calls",
    Recurrent: "lstm is a LSTM",
    Branching: r"item\(\)",
    WeightNormed: "is trained",
    OldWeightNorm: r"net\.0 computes its weight in a hook",
    OldSpectralNorm: r"net\.0",
    Locked: "no copy can be made",
    Reassigning: "puts a new tensor in the place of buffer member.level|place of buffer level",
    Keeping: "keeps a tensor of the step in losses",
    Unequal: "differ in attribute slope",
    UnequalRates: "have different settings",
    Arithmetic: "unsupported operand",
}


@pytest.mark.parametrize("make", CAUSES)
@pytest.mark.parametrize("backend", ["auto", "vmap"])
def test_what_cannot_be_mapped_takes_the_loop_and_says_why(make, backend):
    with pytest.warns(UserWarning, match=CAUSES[make]) as warned:
        ensemble, _ = fit(make, backend)
    assert sum(NOT_MAPPED in str(warning.message) for warning in warned) == 1
    assert ensemble.used_backend == "loop"
    assert difference(ensemble.networks, separate(make)[0]) < 1e-10


def test_autocast_on_the_cpu_takes_the_loop():
    dataset = data()
    options = {"precision": "bf16-mixed", "max_epochs": 1}
    with pytest.warns(UserWarning, match="autocast"):
        ensemble, _ = fit(lambda: Plain(network().float()), dataset=_single(dataset), **options)
    members = separate(lambda: Plain(network().float()), dataset=_single(dataset), **options)[0]
    assert difference(ensemble.networks, members) < 1e-6


def _single(dataset):
    x, y = dataset.tensors
    return torch.utils.data.TensorDataset(x.float(), y)


def test_dropout_draws_for_each_member():
    class Dropping(Plain):
        def __init__(self):
            super().__init__(nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)).double())
            self.net[0].weight.data.fill_(0.0)
            self.net[0].bias.data.fill_(1.0)

        def training_step(self, batch, batch_idx):
            out = self(batch[0])
            self.log("kept", out.gt(0).double().mean())
            return out.square().mean()

    ensemble, _ = fit(Dropping, "vmap", bagging={"log_members": True}, max_epochs=1, limit_train_batches=1)
    kept = [float(ensemble.trainer.callback_metrics[f"kept/member_{k}"]) for k in range(3)]
    assert len(set(kept)) > 1
    assert sum(kept) / 3 == pytest.approx(0.5, abs=0.2)
