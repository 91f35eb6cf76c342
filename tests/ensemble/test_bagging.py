"""An ensemble against K separate fits on the same draws."""

import functools
import pickle

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

import lightning_tricks.ensemble as le
from lightning_tricks.ensemble.mapping import backend as benchmarks
from tests.ensemble.trainings import Plain, Rich, Smooth, data, difference, fit, separate, trainer
from tests.versions import LIGHTNING


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
    if LIGHTNING < (2, 5):
        pytest.skip("Lightning 2.4 does not begin again amid an epoch where it stopped")
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


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`", "ignore:.*is trained by the loop")
@pytest.mark.parametrize(("answer", "backend"), [(None, "vmap"), ("it cannot be here", "loop")])
def test_a_resumed_training_is_compared_again(tmp_path, monkeypatch, answer, backend):
    """Another version of torch, other shapes or another device may have another answer."""
    _, run = fit(Plain, "vmap", max_epochs=1)
    run.save_checkpoint(tmp_path / "a.ckpt")
    asked, found = [], benchmarks.BackendBenchmark.why_not_mapped
    monkeypatch.setattr(
        benchmarks.BackendBenchmark,
        "why_not_mapped",
        lambda self: asked.append(self.batch_idx) or found(self) or answer,
    )
    monkeypatch.setattr(benchmarks.BackendBenchmark, "seconds", lambda self: pytest.fail("the choice was made before"))
    resumed, _ = fit(Plain, "auto", max_epochs=2, ckpt_path=tmp_path / "a.ckpt")
    assert asked == [0]
    assert resumed.used_backend == backend
    assert answer or resumed.reason == "as before"


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_what_was_chosen_is_kept_by_a_checkpoint_before_the_first_step(tmp_path):
    """As one that is written while the Trainer only validates."""
    _, run = fit(Plain, "vmap", max_epochs=1)
    run.save_checkpoint(tmp_path / "a.ckpt")
    _, run = fit(Plain, "auto", max_epochs=1, ckpt_path=tmp_path / "a.ckpt")
    run.save_checkpoint(tmp_path / "b.ckpt")
    assert torch.load(tmp_path / "b.ckpt", weights_only=True)["bagging"]["used_backend"] == "vmap"


def test_does_not_resume_with_other_draws(tmp_path):
    _, run = fit(Rich, "loop", max_epochs=1)
    run.save_checkpoint(tmp_path / "a.ckpt")
    other = le.BaggingEnsemble(Rich, 3, task="classification", backend="loop")
    with pytest.raises(ValueError, match="trained with seed=2, this BootstrapDataModule has 3"):
        trainer(max_epochs=2).fit(other, le.BootstrapDataModule(data(), 3, 16, seed=3), ckpt_path=tmp_path / "a.ckpt")


class Reads(TorchDispatchMode):
    """Collects the operations for which the host has to wait until a device is done."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._opname in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select"):
            self.found.append(func._opname)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("backend", ["vmap", "loop"])
def test_no_step_reads_a_number_from_its_device(backend):
    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step:  # the first one has the comparison of both ways
                self.reads = Reads()
                self.reads.__enter__()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step > 1:
                self.reads.__exit__(None, None, None)
                assert self.reads.found == []

    fit(lambda: Plain(optimizer=lambda p: torch.optim.Adam(p)), backend, callbacks=[Watch()], gradient_clip_val=1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["auto", "vmap", "loop"])
def test_on_a_gpu_as_on_the_cpu(backend):
    ensemble, _ = fit(Smooth, backend, accelerator="gpu")
    assert difference(ensemble.cpu().networks, separate(Smooth)[0]) < 1e-9
