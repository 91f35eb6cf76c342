"""The line of a notebook: shown where a kernel runs, renewed in place, and never a matter of the training."""

import sys
import types

import lightning.pytorch as L
import pytest
import torch
from torch import nn

import lightning_tricks as lt
from lightning_tricks.report.live import LiveView, kernel, row
from tests.report.conftest import mlp


class Notebook:
    """IPython as a kernel has it: what is displayed, by its id."""

    def __init__(self, monkeypatch, with_kernel=True):
        self.shown, self.broken = {}, False
        shell = types.SimpleNamespace(kernel=object() if with_kernel else None)
        display = types.SimpleNamespace(HTML=str, display=self.display, update_display=self.update)
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell, display=display))
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def display(self, shown, display_id):
        assert display_id not in self.shown
        if self.broken:
            raise RuntimeError("the kernel is gone")
        self.shown[display_id] = [shown]

    def update(self, shown, display_id):
        self.shown[display_id].append(shown)


def train(model, steps=12, **options):
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with lt.watch(model, optimizer, every_n_steps=4, on_problem="log", **options) as doctor:
        for _ in range(steps):
            x = torch.randn(64, 8)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), x[:, :4].argmax(1)).backward()
            optimizer.step()
    return doctor


@pytest.mark.usefixtures("capsys")
def test_a_line_is_renewed_at_every_look(monkeypatch):
    notebook = Notebook(monkeypatch)
    doctor = train(mlp(8, nn.Sigmoid))
    (lines,) = notebook.shown.values()
    assert len(lines) == len(doctor.history) + 1  # and at the end
    assert "step 0" in lines[0]
    assert "step 8" in lines[-1]
    assert "Sick" in lines[-1]
    assert "of the way from a guess" in lines[-1]
    assert "vanishing gradient" in lines[-1]
    assert "what to do: " in lines[-1]


@pytest.mark.usefixtures("capsys")
def test_who_asks_for_no_report_gets_no_line(monkeypatch):
    notebook = Notebook(monkeypatch)
    train(mlp(2, nn.ReLU), report=False)
    assert not notebook.shown


@pytest.mark.parametrize("with_kernel", [False, None])
@pytest.mark.usefixtures("capsys")
def test_without_a_kernel_nothing_is_shown_or_imported(with_kernel, monkeypatch):
    """In IPython on a terminal, and where there is none at all."""
    if with_kernel is None:
        monkeypatch.delitem(sys.modules, "IPython", raising=False)
        monkeypatch.delitem(sys.modules, "IPython.display", raising=False)
    else:
        notebook = Notebook(monkeypatch, with_kernel)
        monkeypatch.setattr(notebook, "display", None)
    assert kernel() is None
    train(mlp(2, nn.ReLU))
    assert with_kernel is not None or "IPython" not in sys.modules


@pytest.mark.usefixtures("capsys")
def test_a_display_that_fails_is_asked_once_and_ends_nothing(monkeypatch):
    notebook = Notebook(monkeypatch)
    notebook.broken = True
    doctor = train(mlp(2, nn.ReLU))
    assert len(doctor.history) == 5
    assert not doctor.errors.failed
    notebook.broken = False
    view = LiveView()
    assert view.update(doctor.diagnosis)


@pytest.mark.usefixtures("capsys")
def test_the_training_is_the_same_bit_for_bit(monkeypatch):
    models = [mlp(2, nn.ReLU), mlp(2, nn.ReLU)]
    train(models[0], report=False)
    before = torch.get_rng_state()
    Notebook(monkeypatch)
    train(models[1])
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("capsys")
def test_a_fit_has_a_line_of_its_own(monkeypatch, tmp_path):
    notebook = Notebook(monkeypatch)
    patterns = torch.utils.data.TensorDataset(torch.randn(64, 8), torch.randint(4, (64,)))
    data = torch.utils.data.DataLoader(patterns, 16)
    doctor = lt.TrainingDoctor(table=True, files=False, on_problem="log", every_n_steps=2)
    for _ in range(2):
        module = lt.Classifier(mlp(1, nn.ReLU), num_classes=4)
        L.Trainer(
            max_epochs=1, callbacks=[doctor], logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path,
        ).fit(module, data)  # fmt: skip
    assert len(notebook.shown) == 2


def test_a_row_tells_what_is_known(rectifiers):
    """Nothing yet; a healthy training without a problem; one whose problems are notes alone."""
    assert [line.text for line in row(lt.Diagnosis())] == ["Unknown"]
    (healthy,) = row(lt.Diagnosis(history=rectifiers))
    assert healthy.text.startswith("Healthy so far  step 8  loss ")
    noted = lt.Diagnosis([lt.Finding("overfitting", None, "info", 0)], rectifiers)
    assert len(list(row(noted))) == 1
