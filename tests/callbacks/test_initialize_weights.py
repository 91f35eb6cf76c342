"""InitializeWeights: once, before the first step, and never over weights that were loaded."""

import lightning.pytorch as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt

from .trainings import Classifier


class Recorder(L.Callback):
    """The weights as the first step meets them."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not hasattr(self, "first"):
            self.first = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
            self.batch = batch


def deep():
    return nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.Tanh())), nn.Linear(64, 3))


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 64, generator=generator)
    return DataLoader(TensorDataset(x, torch.randint(3, (256,), generator=generator)), 128)


def fit(module, *callbacks, ckpt_path=None, max_steps=2):
    recorder = Recorder()
    trainer = L.Trainer(
        max_steps=max_steps, callbacks=[*callbacks, recorder], logger=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, data(), ckpt_path=ckpt_path)
    return recorder, trainer


def hidden_stds(recorder):
    network = deep()
    network.load_state_dict({name.removeprefix("net."): value for name, value in recorder.first.items()})
    x, stds = recorder.batch[0], []
    for layer in network:
        x = layer(x)
        if isinstance(layer, nn.Linear):
            stds.append(float(x.detach().std()))
    return stds


def test_lsuv_takes_the_first_batch():
    callback = lt.InitializeWeights("lsuv")
    recorder, _ = fit(Classifier(deep()), callback)
    assert hidden_stds(recorder) == pytest.approx([1.0] * 7, abs=1e-3)
    assert len(callback.report.changed) >= 7


def test_a_scheme_by_name_is_applied():
    recorder, _ = fit(Classifier(deep()), lt.InitializeWeights("lecun_normal"))
    for name, weight in recorder.first.items():
        expected = 1 / 8 if name.endswith("weight") else 0.0
        assert float(weight.std()) == pytest.approx(expected, rel=0.1)


def test_a_module_without_forward_is_run_by_its_training_step_which_logs_nothing():
    class Only(Classifier):
        def training_step(self, batch, batch_idx):
            self.log("calls", 1.0)
            return super().training_step(batch, batch_idx)

    module = Only(deep())
    _, trainer = fit(module, lt.InitializeWeights("lsuv"))
    assert "log" not in vars(module)
    assert {"calls", "loss"} <= set(trainer.callback_metrics)


def test_resumed_and_loaded_weights_are_left_alone(tmp_path):
    _, trainer = fit(Classifier(deep()))
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    stored = torch.load(path, weights_only=True)["state_dict"]

    recorder, _ = fit(Classifier(deep()), lt.InitializeWeights("lsuv"), ckpt_path=path, max_steps=4)
    assert all(torch.equal(recorder.first[name], stored[name]) for name in recorder.first)

    class Loads(Classifier):
        def setup(self, stage):
            self.load_state_dict(stored)

    callback = lt.InitializeWeights("lsuv")
    recorder, _ = fit(Loads(deep()), callback)
    assert callback.report is None
    assert all(torch.equal(recorder.first[name], stored[name]) for name in recorder.first)


def test_it_leaves_no_hook_behind():
    module = Classifier(deep())
    fit(module, lt.InitializeWeights())
    assert not module._load_state_dict_post_hooks


def test_an_unknown_scheme_is_named():
    with pytest.raises(ValueError, match=r"scheme must be one of auto, lsuv, .* got 'xavier'"):
        lt.InitializeWeights("xavier")


def test_monitors_before_it_do_not_see_how_it_runs_the_network():
    doctor = lt.TrainingDoctor(on_problem="log", report=False)
    fit(Classifier(deep()), doctor, lt.InitializeWeights("lsuv"))
    first = doctor.diagnosis.history[0]
    assert not first.not_seen
    assert len(first.weighted) == 7
    assert 0.5 < first.weighted[0].std < 2.0
