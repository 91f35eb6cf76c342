"""Classifier: losses of its tasks, statistics of its data, optimisers by path, checkpoints, ensembles, the doctor."""

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from tests.modules.trainings import breast_cancer, digits, loaders, mlp, plain, trainer


def test_each_task_has_its_loss():
    logits, y = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    made = lt.Classifier(nn.Identity(), 3, class_weights=[1.0, 2.0, 3.0], label_smoothing=0.1)
    truth = F.cross_entropy(logits, y, torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1)
    torch.testing.assert_close(made.loss(logits, y.int()), truth)
    shares = lt.Classifier(nn.Identity(), 3).loss(logits, F.one_hot(y).float())
    torch.testing.assert_close(shares, F.cross_entropy(logits, y))
    torch.testing.assert_close(made.in_units(logits), logits.softmax(1))

    binary, labels = lt.Classifier(nn.Identity(), task="binary"), y.clamp(max=1)
    truth = F.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    for output in (logits[:, 0], logits[:, :1]):
        for target in (labels, labels[:, None], labels.bool(), labels.double()):
            torch.testing.assert_close(binary.loss(output, target), truth)
    torch.testing.assert_close(binary.in_units(logits[:, :1]), logits[:, 0].sigmoid())

    several, ones = lt.Classifier(nn.Identity(), 3, task="multilabel"), F.one_hot(y)
    torch.testing.assert_close(several.loss(logits, ones), F.binary_cross_entropy_with_logits(logits, ones.float()))
    torch.testing.assert_close(several.in_units(logits), logits.sigmoid())


def test_every_pixel_may_have_a_class():
    made, logits, y = lt.Classifier(nn.Identity(), 4), torch.randn(2, 4, 5, 5), torch.randint(4, (2, 5, 5))
    torch.testing.assert_close(made.loss(logits, y), F.cross_entropy(logits, y))
    torch.testing.assert_close(made.in_units(logits).sum(1), torch.ones(2, 5, 5))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: lt.Classifier(nn.Linear(2, 3)), "num_classes, the outputs of a multiclass network, is needed"),
        (lambda: lt.Classifier(nn.Linear(2, 3), 3, task="several"), "task has to be"),
        (lambda: lt.Classifier(nn.Linear(2, 3), 3, optimizer="Adm"), "did you mean 'Adam'"),
        (lambda: lt.Classifier(nn.Linear(2, 3), 3, metrics=["Acuracy"]), "did you mean 'Accuracy'"),
        (lambda: lt.Classifier(nn.Linear(2, 3), 3, optimizer="nowhere.Adam"), "cannot be imported"),
        (lambda: lt.Classifier(nn.Linear(2, 3), 3, class_weights=[1.0]), "hold 3 weights, not 1"),
        (lambda: lt.Classifier(nn.Linear(2, 3), 3, scheduler_interval="batch"), "'epoch' or 'step'"),
        (lambda: lt.Classifier(nn.Linear(2, 3), 4).predict(torch.zeros(1, 2)), r"\[1, 3\], and num_classes is 4"),
        (lambda: lt.Classifier(nn.Linear(2, 2), task="binary").predict(torch.zeros(1, 2)), "puts out one logit"),
        (
            lambda: lt.Classifier(nn.Identity(), 3, task="multilabel").loss(torch.zeros(2, 3), torch.zeros(2)),
            r"targets of shape \[2\] for outputs \[2, 3\]",
        ),
        (lambda: lt.Classifier(nn.Linear(2, 3), 3, label_smoothing=2.0), r"in \[0, 1\), not 2.0"),
        (lambda: lt.Classifier(nn.Linear(2, 3), 3, class_weights=[1, -1, 1]), "weights of 0 and more"),
        (
            lambda: lt.Classifier(nn.Linear(2, 3), 3, metrics=["MeanSquaredError"]),
            "'MeanSquaredError' is none for this",
        ),
        (lambda: lt.Classifier(nn.Identity(), 3).loss(torch.zeros(2, 3), torch.zeros(2)), r"integers: y.long\(\)"),
    ],
)
def test_wrong_values_are_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("task", "targets", "said"),
    [
        ("multiclass", torch.arange(1, 4), "0 to 2, and those of the training data go from 1 to 3"),
        ("multiclass", torch.tensor([-1, 1, 1]), "from -1 to 1: number the classes from 0"),
        ("binary", torch.tensor([1.0, 2.0, 1.0]), "0 to 1"),
        ("binary", torch.tensor([-1, 1, 1]), "0 to 1"),
        ("multilabel", torch.tensor([[0, 1, 2]] * 3), "0 to 1"),
    ],
)
def test_targets_that_mean_something_else_are_told_before_the_training(task, targets, said):
    module = lt.Classifier(plain(4, 1 if task == "binary" else 3), 3, task=task)
    with pytest.raises(ValueError, match=said):
        module.fit_statistics([(torch.randn(3, 4), targets)])
    pixels, shares = torch.tensor([[0, -100, 2]]), torch.ones(1, 3) / 3  # of the pixels the second has no class
    lt.Classifier(plain(4, 3), 3).fit_statistics([(torch.randn(1, 4), pixels), (torch.randn(1, 4), shares)])


def test_targets_with_a_column_and_whole_numbers_go_in():
    module, x, y = lt.Classifier(plain(4, 3), 3), torch.randint(9, (8, 4)), torch.arange(8) % 3
    torch.testing.assert_close(module.loss(x[:, :3].float(), y[:, None]), module.loss(x[:, :3].float(), y))
    module.fit_statistics([(x.float(), y)])
    torch.testing.assert_close(module.predict(x), module.predict(x.float()))
    assert module.measured(x[:, :3].float(), y[:, None])[1].shape == (8,)


def test_what_is_no_batch_is_told():
    module = lt.Classifier(plain(4, 3), 3)
    data = TensorDataset(torch.randn(9, 4), torch.arange(9) % 3)
    with pytest.raises(TypeError, match=r"single samples, not batches: wrap it, DataLoader\(dataset"):
        trainer().fit(module, data)
    with pytest.raises(TypeError, match=r"trainer.predict\(model, loader\)"):
        module.predict(DataLoader(data, 3))
    module.fit_statistics(DataLoader(data, 3))
    with pytest.raises(ValueError, match=r"for the batch: x\[None\]"):
        module.predict(data[0][0])


def test_a_network_is_a_module_or_a_path_of_one():
    with pytest.raises(TypeError, match="class_path"):
        lt.Classifier("resnet18", 3)
    assert isinstance(lt.Classifier(mlp(4, 3), 3).network, nn.Sequential)


def test_inputs_are_standardised_by_the_training_data_and_arrive_raw():
    x = torch.randn(200, 5) * torch.tensor([1.0, 10.0, 100.0, 0.5, 5.0]) + 50
    train, test = loaders(x, torch.randint(3, (200,)))
    module = lt.Classifier(plain(5, 3), 3)
    before = torch.get_rng_state()
    module.fit_statistics(train)
    assert torch.equal(torch.get_rng_state(), before)
    inner = train.dataset.tensors[0]
    torch.testing.assert_close(module.standardize.mean, inner.mean(0))
    scaled = (x[:4] - inner.mean(0)) / inner.std(0, correction=0)
    torch.testing.assert_close(module(x[:4]), module.network(scaled), rtol=1e-3, atol=1e-4)
    fitted = lt.Classifier(plain(5, 3), 3)
    trainer(max_epochs=1).fit(fitted, train, test)
    torch.testing.assert_close(fitted.standardize.mean, module.standardize.mean)


def test_so_many_samples_are_read_and_tokens_stay():
    read = []

    class Counting(TensorDataset):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    data = DataLoader(Counting(torch.randn(100, 4), torch.zeros(100).long()), 10)
    lt.Classifier(plain(4, 2), 2, num_samples=30).fit_statistics(data)
    assert len(read) == 30
    tokens = lt.Classifier(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)), 2)
    tokens.fit_statistics([(torch.randint(9, (8, 3)), torch.zeros(8).long())])
    assert isinstance(tokens.standardize, nn.Identity)
    assert tokens.predict(torch.randint(9, (8, 3))).shape == (8, 2)


def test_bytes_doubles_and_arrays_go_in():
    module = lt.Classifier(nn.Sequential(nn.Flatten(), plain(12, 2)), 2)
    images = torch.randint(0, 256, (20, 3, 2, 2), dtype=torch.uint8)
    module.fit_statistics([(images, torch.zeros(20).long())])
    assert module.standardize.num_features == 3
    found = module.predict(images)
    torch.testing.assert_close(module.predict(images.double()), found)
    torch.testing.assert_close(module.predict(images.numpy()), found)
    torch.testing.assert_close(module.predict(images, batch_size=7), found)


def test_predictions_are_in_evaluation_mode_and_leave_the_flags():
    module = lt.Classifier(nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)), 2).train()
    x = torch.randn(5, 4)
    assert torch.equal(module.predict(x), module.predict(x))
    assert all(part.training for part in module.modules())
    assert not module.predict(x).requires_grad


def test_any_optimiser_and_schedule():
    train, _ = digits()
    module = lt.Classifier(
        plain(64, 10), 10, optimizer="SGD", learning_rate=0.1, optimizer_options={"momentum": 0.9},
        scheduler="torch.optim.lr_scheduler.OneCycleLR", scheduler_interval="step",
        scheduler_options={"max_lr": 0.2, "total_steps": "total_steps"},
    )  # fmt: skip
    fitted = trainer(max_epochs=2)
    fitted.fit(module, train)
    optimizer, schedule = fitted.optimizers[0], fitted.lr_scheduler_configs[0]
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.param_groups[0]["nesterov"] is False
    assert (schedule.scheduler.total_steps, schedule.interval) == (2 * len(train), "step")
    assert optimizer.param_groups[0]["lr"] < 1e-3

    cosine = lt.Classifier(plain(64, 10), 10, scheduler="CosineAnnealingLR", scheduler_options={"T_max": "max_epochs"})
    fitted = trainer(max_epochs=2)
    fitted.fit(cosine, train)
    assert fitted.lr_scheduler_configs[0].scheduler.T_max == 2
    plateau = lt.Classifier(plain(64, 10), 10, scheduler="ReduceLROnPlateau", scheduler_monitor="train_loss")
    trainer(max_epochs=1, limit_train_batches=2).fit(plateau, train)


def test_what_is_logged():
    train, test = digits()
    module, fitted = lt.Classifier(plain(64, 10), 10, metrics=["Accuracy", "AUROC", "F1Score"]), trainer(max_epochs=2)
    fitted.fit(module, train, test)
    logged = {name: float(value) for name, value in fitted.callback_metrics.items()}
    assert set(logged) == {"train_loss", "val_loss", "val_accuracy", "val_auroc", "val_f1_score"}
    x, y = test.dataset.tensors
    found = module.predict(x)
    assert logged["val_accuracy"] == pytest.approx(float((found.argmax(1) == y).double().mean()), abs=1e-6)
    assert logged["val_loss"] == pytest.approx(float(F.nll_loss(found.log(), y)), rel=1e-4)
    tested = fitted.test(module, test, verbose=False)[0]
    assert tested["test_accuracy"] == pytest.approx(logged["val_accuracy"])
    predicted = torch.cat(fitted.predict(module, test))
    torch.testing.assert_close(predicted, found)


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_metrics_of_the_other_tasks(task):
    x = torch.randn(300, 4)
    y = (x[:, 0] > 0).long() if task == "binary" else (x[:, :3] > 0).long()
    train, test = loaders(x, y)
    module = lt.Classifier(plain(4, 1 if task == "binary" else 3), 3, task=task, learning_rate=0.05)
    fitted = trainer(max_epochs=10)
    fitted.fit(module, train, test)
    assert float(fitted.callback_metrics["val_accuracy"]) > 0.9
    found, truth = module.predict(test.dataset.tensors[0]), test.dataset.tensors[1]
    assert float(((found > 0.5).long() == truth).double().mean()) == pytest.approx(
        float(fitted.callback_metrics["val_accuracy"]), abs=1e-6
    )


@pytest.mark.parametrize("by_path", [True, False], ids=["class path", "module"])
def test_checkpoints_go_both_ways(tmp_path, by_path):
    train, test = digits()
    options = {"metrics": ["Accuracy"], "label_smoothing": 0.1, "class_weights": [1.0] * 10}
    module = lt.Classifier(mlp(64, 10) if by_path else plain(64, 10), 10, **options)
    fitted = trainer(max_epochs=1)
    fitted.fit(module, train, test)
    fitted.save_checkpoint(tmp_path / "model.ckpt")
    more = {} if by_path else {"network": plain(64, 10)}
    loaded = lt.Classifier.load_from_checkpoint(tmp_path / "model.ckpt", **more)
    x = test.dataset.tensors[0]
    assert torch.equal(loaded.predict(x), module.predict(x))
    assert loaded.label_smoothing == 0.1
    resumed = lt.Classifier(mlp(64, 10), 10, **options)
    again = trainer(max_epochs=2)
    again.fit(resumed, train, test, ckpt_path=tmp_path / "model.ckpt")
    assert torch.equal(resumed.standardize.mean, module.standardize.mean)
    assert float(again.callback_metrics["val_accuracy"]) > float(fitted.callback_metrics["val_accuracy"]) - 0.02


def member():
    return lt.Classifier(plain(64, 10), 10)


@pytest.mark.parametrize("backend", ["vmap", "loop"])
def test_members_of_an_ensemble_are_mapped(backend, recwarn):
    train, test = digits()
    ensemble = lt.BaggingEnsemble(member, num_members=4, task="classification", backend=backend)
    fitted = trainer(max_epochs=8)
    fitted.fit(ensemble, lt.BootstrapDataModule(train.dataset, num_members=4, batch_size=64), val_dataloaders=None)
    assert ensemble.used_backend == backend
    assert not [str(w.message) for w in recwarn if "loop over members" in str(w.message)]
    inner = train.dataset.tensors[0]
    for network in ensemble.networks:
        torch.testing.assert_close(network.standardize.mean, inner.mean(0), rtol=1e-4, atol=1e-4)
    x, y = test.dataset.tensors
    assert float((ensemble.predict(x).mean.argmax(1) == y).double().mean()) > 0.85
    assert ensemble.out_of_bag.score > 0.85


def test_an_ensemble_of_labels_is_refused():
    ensemble = lt.BaggingEnsemble(lambda: lt.Classifier(plain(4, 3), 3, task="multilabel"), 2, task="classification")
    data = TensorDataset(torch.randn(20, 4), torch.ones(20, 3))
    with pytest.raises(ValueError, match="not multilabel"):
        trainer().fit(ensemble, lt.BootstrapDataModule(data, num_members=2, batch_size=8))


def test_the_doctor_calls_the_defaults_healthy():
    train, test = digits()
    doctor = lt.TrainingDoctor(on_problem="log", report=False)
    trainer(doctor, max_epochs=8, log_every_n_steps=10).fit(lt.Classifier(plain(64, 10, 64), 10), train, test)
    assert doctor.diagnosis.state == "healthy", str(doctor.diagnosis)
    assert lt.checkup(lt.Classifier(plain(64, 10, 64), 10), train).state == "healthy"


@pytest.mark.parametrize("task", ["binary", "multilabel", "weighted"])
def test_the_doctor_calls_the_other_tasks_healthy(task):
    if task == "weighted":  # one class in ten, whose patterns count nine times
        x = torch.randn(600, 6, generator=torch.Generator().manual_seed(0))
        train, test = loaders(x, (x[:, 0] + x[:, 1] > 1.8).long(), 32)
        module = lt.Classifier(plain(6, 2), 2, class_weights=[1.0, 9.0])
    elif task == "binary":
        train, test = breast_cancer()
        module = lt.Classifier(plain(30, 1), task="binary")
    else:
        x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
        train, test = loaders(x, (x[:, :3] + x[:, 3:] > 0.5).long(), 32)
        module = lt.Classifier(plain(6, 3), 3, task="multilabel")
    doctor = lt.TrainingDoctor(on_problem="log", report=False)
    trainer(doctor, max_epochs=10, log_every_n_steps=10).fit(module, train, test)
    assert doctor.diagnosis.state == "healthy", str(doctor.diagnosis)


def test_a_subclass_changes_what_it_likes():
    class Focal(lt.Classifier):
        def __init__(self, network, num_classes, gamma=2.0):
            super().__init__(network, num_classes)
            self.gamma = gamma

        def loss(self, output, y):
            chosen = output.log_softmax(1).gather(1, y[:, None])
            return -((1 - chosen.exp()) ** self.gamma * chosen).mean()

    train, test = digits()
    module = Focal(plain(64, 10), 10, gamma=1.0)
    trainer(max_epochs=2).fit(module, train, test)
    assert module.hparams.gamma == 1.0
    assert float((module.predict(test.dataset.tensors[0]).argmax(1) == test.dataset.tensors[1]).double().mean()) > 0.7


def test_without_training_data_it_says_so():
    class Blind(L.LightningDataModule):
        def predict_dataloader(self):
            return []

    module = lt.Classifier(plain(4, 2), 2)
    ensemble = lt.BaggingEnsemble(lambda: lt.Classifier(plain(4, 2), 2), 2, task="classification")
    batches = [(torch.randn(2, 4, 4), torch.zeros(2, 4).long())] * 2
    with pytest.warns(UserWarning, match=r"call fit_statistics\(loader\) first"):
        trainer(max_epochs=1).fit(ensemble, DataLoader(batches, batch_size=None))
    assert isinstance(ensemble.networks[0].standardize, nn.Identity)
    assert np.isfinite(module.predict(torch.randn(3, 4)).numpy()).all()
