"""An ensemble against K separate fits on the same draws."""

import functools
import pickle

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

import lightning_tricks.ensemble as le
from tests.ensemble.trainings import DOUBLE, Plain, Rich, data, difference, fit, network, separate, trainer

NOT_MAPPED = "is trained by the loop over members"


@functools.cache
def rich():
    validation = DataLoader(data(20, seed=9), batch_size=16)
    members, runs = separate(Rich, val=validation, max_epochs=3)
    return members, [{name: float(value) for name, value in run.callback_metrics.items()} for run in runs]


@pytest.mark.parametrize("backend", ["auto", "vmap", "loop"])
def test_members_end_where_separate_fits_end(backend):
    members, metrics = rich()
    ensemble, run = fit(Rich, backend, val=data(20, seed=9), max_epochs=3)
    assert backend == "auto" or ensemble.used_backend == backend
    assert difference(ensemble.networks, members) < 1e-10
    for name in metrics[0]:
        mean = sum(values[name] for values in metrics) / 3
        assert float(run.callback_metrics[name]) == pytest.approx(mean, abs=1e-6), name


def test_both_backends_are_the_same():
    one, two = (fit(Rich, backend)[0] for backend in ("vmap", "loop"))
    assert difference(one.networks, two.networks) < 1e-10


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.02),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.02),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1.0),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.02),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.1, t0=2),
}


class Smooth(Plain):
    """No batch norm: no biases whose gradient is rounding noise, which some optimisers blow up."""

    def __init__(self, optimizer=None):
        super().__init__(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double(), optimizer)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_optimizer_over_the_stack_is_k_optimizers(name):
    make = functools.partial(Smooth, OPTIMIZERS[name])
    ensemble, _ = fit(make, "vmap")
    assert ensemble.used_backend == "vmap"
    assert difference(ensemble.networks, separate(make)[0]) < 1e-10


class Convolutional(Plain):
    def __init__(self):
        net = nn.Sequential(
            nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.MaxPool1d(2),
            nn.ConvTranspose1d(4, 2, 2), nn.Flatten(), nn.LayerNorm(6), nn.Linear(6, 3),
        )  # fmt: skip
        super().__init__(net.double())


class Tied(Plain):
    """Two layers share one weight, a third is frozen."""

    def __init__(self):
        one, two, frozen = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        two.weight = one.weight
        frozen.requires_grad_(False)
        super().__init__(nn.Sequential(one, nn.Tanh(), two, frozen).double(), self.sgd)

    @staticmethod
    def sgd(parameters):
        return torch.optim.SGD([value for value in parameters if value.requires_grad], lr=0.1)


class Attentive(Plain):
    def __init__(self):
        super().__init__(nn.Identity())
        self.attention, self.head = nn.MultiheadAttention(2, 1, batch_first=True), nn.Linear(6, 3)
        self.double()

    def forward(self, x):
        x = x.view(-1, 3, 2)
        return self.head(self.attention(x, x, x, need_weights=False)[0].flatten(1))


@pytest.mark.parametrize("make", [Convolutional, Tied, Attentive])
@pytest.mark.parametrize("backend", ["vmap", "loop"])
def test_other_networks(make, backend):
    ensemble, _ = fit(make, backend)
    assert ensemble.used_backend == backend
    assert difference(ensemble.networks, separate(make)[0]) < 1e-10


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
    Reassigning: "puts a new tensor in the place of buffer member.level|place of buffer level",
    Keeping: "keeps a tensor of the step in losses",
    Unequal: "differ in attribute slope",
    UnequalRates: "have different settings",
    Arithmetic: "unsupported operand",
}


@pytest.mark.parametrize("make", CAUSES)
def test_what_cannot_be_mapped_takes_the_loop_and_says_why(make):
    with pytest.warns(UserWarning, match=CAUSES[make]) as warned:
        ensemble, _ = fit(make)
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


@pytest.mark.parametrize("backend", ["vmap", "loop"])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_per_member_and_accumulate(backend, algorithm):
    make = functools.partial(Smooth, OPTIMIZERS["sgd"])
    options = {"gradient_clip_val": 0.05, "gradient_clip_algorithm": algorithm, "accumulate_grad_batches": 2}
    ensemble, _ = fit(make, backend, **options)
    assert difference(ensemble.networks, separate(make, **options)[0]) < 1e-10


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


def test_choosing_a_backend_leaves_no_trace():
    auto = fit(lambda: Plain(network(0.3)), "auto")[0]
    fixed = fit(lambda: Plain(network(0.3)), auto.used_backend)[0]
    assert difference(auto.networks, fixed.networks) == 0.0
    assert "ms mapped" in auto.reason


def test_validation_in_the_middle_of_an_epoch_leaves_the_metrics_of_training_alone():
    options = {"val_check_interval": 1, "max_epochs": 2, "num_sanity_val_steps": 0}
    _, run = fit(Rich, "vmap", val=data(20, seed=9), **options)
    _, runs = separate(Rich, val=DataLoader(data(20, seed=9), batch_size=16), **options)
    for name in runs[0].callback_metrics:
        mean = sum(float(one.callback_metrics[name]) for one in runs) / 3
        assert float(run.callback_metrics[name]) == pytest.approx(mean, abs=1e-6), name


def test_layers_thawed_by_a_callback():
    class Thaw(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            for member in getattr(pl_module, "networks", [pl_module]):
                member.net[0].requires_grad_(trainer.current_epoch > 0)

    one, two = (fit(Smooth, backend, callbacks=[Thaw()], max_epochs=3)[0] for backend in ("vmap", "loop"))
    assert difference(one.networks, two.networks) < 1e-10
    assert difference(one.networks, separate(Smooth, max_epochs=3, callbacks=lambda _: [Thaw()])[0]) < 1e-10


def test_validate_and_load_from_a_checkpoint(tmp_path):
    ensemble, run = fit(Rich, "vmap", max_epochs=1)
    run.save_checkpoint(tmp_path / "a.ckpt")
    arguments = {"make_member": Rich, "num_members": 3, "task": "classification"}
    loaded = le.BaggingEnsemble.load_from_checkpoint(tmp_path / "a.ckpt", **arguments)
    loader = DataLoader(data(20, seed=9), batch_size=20)
    (measured,) = trainer().validate(loaded, loader, verbose=False)
    x, y = data(20, seed=9).tensors
    with torch.no_grad():
        losses = [float(F.cross_entropy(member.eval()(x), y)) for member in ensemble.members()]
    assert measured["val_loss"] == pytest.approx(sum(losses) / 3)


def test_after_a_fit_members_are_ordinary():
    ensemble, _ = fit(Rich, "vmap", max_epochs=1)
    for member in ensemble.networks:
        assert "log" not in vars(member)
        for value in member.parameters():
            assert value.is_contiguous()
            assert value.untyped_storage().nbytes() == value.numel() * value.element_size()
    copies = ensemble.members()
    assert difference(copies, ensemble.networks) == 0.0
    Rich().load_state_dict(copies[0].state_dict())
    assert difference(pickle.loads(pickle.dumps(ensemble)).networks, ensemble.networks) == 0.0


@pytest.mark.parametrize("backend", ["vmap", "loop"])
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_resumes_bit_for_bit_also_amid_an_epoch(tmp_path, backend):
    """Three epochs of three steps, resumed after each of the first five steps, by members of other weights."""
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    whole, _ = fit(Rich, backend, max_epochs=3, callbacks=[saving], enable_checkpointing=True)
    for step in range(1, 6):
        other = le.BaggingEnsemble(Rich, 3, task="classification", backend=backend, seed=77)
        resumed = trainer(max_epochs=3)
        path = tmp_path / f"step={step}.ckpt"
        torch.load(path, weights_only=True)  # nothing but tensors and builtins
        resumed.fit(other, le.BootstrapDataModule(data(), 3, 16, seed=2), ckpt_path=path)
        assert resumed.global_step == 9
        assert difference(other.networks, whole.networks) == 0.0, step


def test_does_not_resume_with_other_draws(tmp_path):
    _, run = fit(Rich, "loop", max_epochs=1)
    run.save_checkpoint(tmp_path / "a.ckpt")
    other = le.BaggingEnsemble(Rich, 3, task="classification", backend="loop")
    with pytest.raises(ValueError, match="trained with seed=2, this BootstrapDataModule has 3"):
        trainer(max_epochs=2).fit(other, le.BootstrapDataModule(data(), 3, 16, seed=3), ckpt_path=tmp_path / "a.ckpt")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["auto", "vmap", "loop"])
def test_on_a_gpu_as_on_the_cpu(backend):
    ensemble, _ = fit(Smooth, backend, accelerator="gpu")
    assert difference(ensemble.cpu().networks, separate(Smooth)[0]) < 1e-9
