"""Mistakes that people make, and what they read."""

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from tests.callbacks.trainings import Classifier, fit

X, Y = torch.randn(8, 4), torch.randint(2, (8,))


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


class Member(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=4)


def ensemble():
    return lt.BaggingEnsemble(Member, num_members=2, task="classification")


def scripted():
    return torch.jit.script(net())


def checkup(**options):
    return lt.checkup(net(), (X, Y), F.cross_entropy, **{"num_batches": 1, **options})


IGNORE = r"ignore must be names of problems such as \('dead_units', 'bias_shift:encoder\.\*'\), got None"
MEANT = "unknown problem to ignore 'dead_unit': did you mean 'dead_units'. known are linearity"
MODULE = r"model must be a torch\.nn\.Module, got "
MISTAKES = {
    "ignore=None": (lambda: lt.TrainingDoctor(ignore=None), TypeError, IGNORE),
    "ignore=None in checkup": (lambda: checkup(ignore=None), TypeError, IGNORE),
    "ignore=None in diagnose": (lambda: lt.diagnose([], ignore=None), TypeError, IGNORE),
    "a misspelt problem": (lambda: lt.TrainingDoctor(ignore=("dead_unit",)), ValueError, MEANT),
    "a misspelt problem in checkup": (lambda: checkup(ignore="dead_unit"), ValueError, MEANT),
    "a misspelt problem of a layer": (lambda: lt.diagnose([], ignore=["dead_unit:net.*"]), ValueError, MEANT),
    "num_batches": (lambda: checkup(num_batches="8"), TypeError, "num_batches must be a whole number .*, got '8'"),
    "a class as an activation": (lambda: lt.init.gain(nn.ReLU), TypeError, r"the class ReLU: call it, ReLU\(\)"),
    "a misspelt activation": (lambda: lt.init.gain("rellu"), ValueError, "'rellu': did you mean 'relu'. known are"),
    "initialize(tensor)": (lambda: lt.init.initialize(X), TypeError, f"{MODULE}Tensor$"),
    "initialize(model, x)": (lambda: lt.init.initialize(net(), X), TypeError, "got Tensor: a batch goes to batch="),
    "a misspelt scheme": (lambda: lt.init.initialize(net(), "he_norm"), ValueError, "did you mean 'he_normal'"),
    "lsuv_": (lambda: lt.init.lsuv_(X, X), TypeError, f"{MODULE}Tensor$"),
    "insert_batch_norm": (lambda: lt.surgery.insert_batch_norm("x"), TypeError, f"{MODULE}str 'x'"),
    "convert_batch_norm": (lambda: lt.surgery.convert_batch_norm(3, nn.BatchNorm2d), TypeError, f"{MODULE}int"),
    "fold_batch_norm": (lambda: lt.surgery.fold_batch_norm(nn.ReLU), TypeError, r"the class ReLU: call it, ReLU\("),
    "self_normalize": (lambda: lt.surgery.self_normalize(None), TypeError, f"{MODULE}NoneType"),
    "swap_activation": (lambda: lt.surgery.swap_activation(X, "relu", "selu"), TypeError, f"{MODULE}Tensor"),
    "update_population": (lambda: lt.surgery.update_population_statistics(X, []), TypeError, f"{MODULE}Tensor"),
    "diagnose(doctor)": (lambda: lt.diagnose(lt.TrainingDoctor()), TypeError, "got TrainingDoctor: give its history"),
    "diagnose(snapshot)": (lambda: lt.diagnose(lt.Snapshot()), TypeError, "got Snapshot: give a list of them"),
    "diagnose(3)": (lambda: lt.diagnose(3), TypeError, "list of snapshots, such as doctor.history, got int"),
    "ladder(diagnosis)": (lambda: lt.report.ladder(lt.Diagnosis()), TypeError, "got Diagnosis: give its history"),
    "a member": (
        lambda: lt.BaggingEnsemble(Member(), task="regression"), TypeError, r"got a Member: give lambda: Member\("),
    "a loader to draw from": (
        lambda: lt.BootstrapDataModule(loader(), 2), TypeError, "must be a dataset, got DataLoader: give its dataset"),
    "predict(loader)": (lambda: ensemble().predict(loader()), TypeError, "got DataLoader: use trainer.predict"),
    "dropout of nothing": (lambda: lt.MonteCarloDropout(None), TypeError, f"{MODULE}NoneType"),
    "a scripted model": (
        lambda: lt.checkup(scripted(), (X, Y), F.cross_entropy), TypeError, "inside of a scripted model is seen"),
    "layers of a probe": (lambda: lt.probe(net(), layers=3), TypeError, "layers must be a glob .* or a list"),
    "patterns of a probe": (lambda: lt.probe(net(), max_patterns="a"), TypeError, "max_patterns must be a whole"),
    "a class to probe": (lambda: lt.probe(nn.ReLU), TypeError, r"got the class ReLU: call it, ReLU\(\.\.\.\)"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_what_to_do(name):
    make, error, message = MISTAKES[name]
    if name == "ladder(diagnosis)":
        pytest.importorskip("matplotlib")
    with pytest.raises(error, match=message):
        make()


def test_one_problem_to_ignore_need_not_be_a_list():
    assert checkup(ignore="overfitting").history
    assert lt.diagnose([], ignore="overfitting").state == "unknown"


def test_a_problem_is_ignored_at_some_layers_only():
    def layers(**options):
        symmetric = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        for parameter in symmetric.parameters():
            nn.init.constant_(parameter, 0.5)
        found = lt.checkup(symmetric, (X, Y), F.cross_entropy, num_batches=4, **options).findings
        return [(finding.problem, finding.layer) for finding in found]

    (problem, layer), *_ = layers()
    assert (problem, layer) not in layers(ignore=(f"{problem}:{layer}",))
    assert (problem, layer) in layers(ignore=(f"{problem}:nowhere.*",))


def test_a_misspelt_glob_beside_a_good_one_is_named():
    monitor = lt.ActivationMonitor(every_n_steps=1, layers=["net.0", "net.33"])
    with pytest.warns(UserWarning, match=r"no layer matches layers='net.33' \(did you mean 'net\.\d'"):
        fit(Classifier(), [monitor], logger=False, default_root_dir=None)
    assert [record.name for record in monitor.history[0].weighted] == ["net.0"]
