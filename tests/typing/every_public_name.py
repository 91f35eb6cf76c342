"""A user's script that uses every public name: it runs, and type checkers have nothing to say to it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
import lightning_tricks.ensemble as le


class Network(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.net(x)
        return output

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return cross_entropy(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


def any_loop(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    optimizer = torch.optim.Adam(model.parameters())
    with lt.watch(model, optimizer, report=False, every_n_steps=2, ignore=("overfitting",), files=None) as doctor:
        for _ in range(2):
            optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(model(x), y))
            optimizer.step()
        doctor.validated(1.0)
    kept: lt.LoopDoctor = doctor
    state: dict[str, Any] = kept.state_dict()
    assert kept.step == 2
    assert not kept.should_stop
    assert kept.diagnosis.history
    try:
        callback: lt.TransformersDoctor = lt.TransformersDoctor(report=False)
        assert callback.diagnosis.state == "unknown"
    except ModuleNotFoundError:
        pass
    return state


def attach(data: DataLoader[tuple[Tensor, ...]], folder: str) -> list[lt.Snapshot]:
    doctor = lt.TrainingDoctor(on_problem="log", report=False, ignore=("overfitting",), every_n_steps=2)
    callbacks: list[L.Callback] = [
        lt.ActivationMonitor(layers=["net.*"], max_patterns=None),
        lt.GradientFlowMonitor(log_per_layer=False),
        doctor,
        lt.InitializeWeights(scheme="auto"),
        lt.PreciseBatchNorm(num_samples=64),
        lt.BatchAugmentation([lt.nn.AdditiveNoise(0.1)], entries={0: "image"}, seed=1),
    ]
    trainer = L.Trainer(
        max_steps=4,
        callbacks=callbacks,
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(Network(), data)
    diagnosis: lt.Diagnosis = doctor.diagnosis
    print(diagnosis.verdict, diagnosis.healthy)
    for finding in diagnosis.findings:
        error = lt.TrainingProblemError(finding)
        print(error, finding.problem, finding.layer, finding.remedies[0].text, finding.why())
    history: list[lt.Snapshot] = list(doctor.history)
    return history


def look(x: Tensor, y: Tensor) -> list[lt.Snapshot]:
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with lt.probe(model, optimizer) as p:
        torch.autograd.backward(cross_entropy(model(x), y))
        optimizer.step()
    snapshot: lt.Snapshot = p.snapshot()
    activation: lt.ActivationRecord = snapshot.activations[0]
    weighted: lt.WeightedRecord = snapshot.weighted[0]
    parameter: lt.ParameterRecord = snapshot.parameters[0]
    total: float = activation.linearity + weighted.error_signal + parameter.update_ratio
    print(total, activation.name, activation.function, weighted.operation, snapshot.not_seen)
    print(lt.checkup(plain(), (x, y), cross_entropy, num_batches=2))
    treatment: lt.Treatment = lt.treat(plain(), None, (x, y), cross_entropy, max_seconds=1.0, dry_run=True)
    print(treatment, treatment.advice, [remedy.layer for remedy in treatment.applied])
    treatment.undo()
    verification: lt.Verification = lt.verify(plain(), (x, y), cross_entropy)
    healthy: lt.Diagnosis = lt.assert_healthy(plain(), (x, y), cross_entropy, num_batches=2, experiments="none")
    layers: lt.Summary = lt.summary(plain(), x)
    found: lt.Comparison = lt.compare(healthy, healthy, names=("one", "other"))
    print(layers.layers[0].predicted, found.part, found.verdict, [each.step for each in found.partings])
    assert verification.identical, verification
    return [snapshot]


@lt.rule(
    "loud_logits",
    stage="units",
    brings_about=("exploding_gradient",),
    heading="loud logits",
    remedies=(lt.Remedy("scale", "divide the output by ten"),),
)
def loud_logits(history: Any) -> list[lt.Finding]:
    loud = history[-1].weighted[-1]
    if not loud.std > 1e-6:
        return []
    return [lt.Finding("loud_logits", loud.name, "warning", history[-1].step, {"std": loud.std})]


def judge(history: list[lt.Snapshot], folder: str) -> None:
    own: lt.Rule = loud_logits
    diagnosis = lt.diagnose(history, ignore=("linearity",), rules=[own])
    finding: lt.Finding = diagnosis.findings[0]
    tried: lt.Experiment = lt.experiments.free_outputs(plain(), (torch.randn(8, 8), torch.arange(8) % 3), cross_entropy)
    print(tried, finding.proof, len(diagnosis.experiments))
    remedy: lt.Remedy = lt.Remedy("nothing", "wait", finding.layer)
    values: dict[str, Any] = diagnosis.to_dict()
    print(remedy, len(values), diagnosis.to_csv(Path(folder) / "history.csv"))
    print(lt.report.write_csv(history, Path(folder) / "again.csv"), lt.report.Diagnosis is lt.Diagnosis)
    trial = lt.report.CurveComparison("lower rate", {"before": [(0, 1.0)], "after": [(0, 0.5)]}, "it learns")
    page: Path = diagnosis.to_html(Path(folder) / "page.html", trials=[trial])
    print(page, lt.report.write_html(diagnosis, page), lt.report.write_folder(diagnosis, folder))
    print(lt.report.explain("linearity"))
    figures = [
        lt.report.ladder(history),
        lt.report.gradient_flow(history),
        lt.report.dead_and_linear(history),
        lt.report.histogram_over_time(history, history[0].activations[0].name),
        lt.report.histograms_over_time(history),
        lt.report.comparison(history, history),
        *lt.report.all_figures(history).values(),
    ]
    print(len(figures), lt.report.save_all(history, folder))


def build(x: Tensor, images: Tensor, data: DataLoader[tuple[Tensor, ...]]) -> None:
    standardize: lt.nn.Standardize = lt.nn.Standardize.fit(data)
    blocks: list[nn.Module] = [
        lt.nn.SELULinear(8, 4, dropout=0.1),
        lt.nn.SelfNormalizingMLP(8, [16, 16], 3),
        lt.nn.AlphaDropout(0.1),
        lt.nn.ShiftedReLU(),
        lt.nn.GhostBatchNorm1d(8, ghost_size=8),
        lt.nn.BatchRenorm1d(8),
        lt.nn.MeanOnlyBatchNorm1d(8),
        standardize,
    ]
    two: list[nn.Module] = [
        lt.nn.SELUConv2d(3, 4, 3),
        lt.nn.FeatureAlphaDropout(0.1),
        lt.nn.GhostBatchNorm2d(3, ghost_size=8),
        lt.nn.BatchRenorm2d(3),
        lt.nn.MeanOnlyBatchNorm2d(3),
    ]
    one, three = images.flatten(2), images.unsqueeze(2)
    others: list[tuple[nn.Module, Tensor]] = [
        (lt.nn.SELUConv1d(3, 4, 3), one),
        (lt.nn.SELUConv3d(3, 4, 1), three),
        (lt.nn.GhostBatchNorm3d(3, ghost_size=8), three),
        (lt.nn.BatchRenorm3d(3), three),
        (lt.nn.MeanOnlyBatchNorm3d(3), three),
    ]
    pairs = [*((block, x) for block in blocks), *((block, images) for block in two), *others]
    print([tuple(block(given).shape) for block, given in pairs])
    dropped: Tensor = lt.nn.alpha_dropout(x, lt.nn.matched_p(0.5))
    ghost: tuple[Tensor, Tensor, Tensor] = lt.nn.ghost_batch_norm(x, 8)
    centred: tuple[Tensor, Tensor] = lt.nn.mean_only_batch_norm(x)
    renormed = lt.nn.batch_renorm(x, torch.zeros(8), torch.ones(8))
    movements: list[nn.Module] = [
        lt.nn.RandomAffine(flip=0.5),
        lt.nn.ElasticDeformation(8.0, 2.0),
        lt.nn.AdditiveNoise(),
    ]
    print([tuple(movement(images).shape) for movement in movements])
    still = torch.zeros(16)
    moved = lt.nn.affine_warp(still, torch.zeros(16, 2), torch.ones(16), torch.zeros(16, 2)).images(images)
    bent = lt.nn.elastic_warp(torch.zeros(16, 2, 6, 6), 8.0, 2.0).points(torch.zeros(16, 1, 2), (6, 6))
    print(moved.shape, bent.shape)
    print(dropped.shape, ghost[0].shape, centred[0].shape, len(renormed), lt.nn.micro_batch_momentum(0.1, 4))


def start(x: Tensor) -> None:
    weight = torch.empty(16, 8)
    presets = (
        lt.init.lecun_normal_,
        lt.init.lecun_uniform_,
        lt.init.he_normal_,
        lt.init.he_uniform_,
        lt.init.glorot_normal_,
        lt.init.glorot_uniform_,
        lt.init.orthogonal_,
    )
    filled: list[Tensor] = [preset(weight) for preset in presets]
    parameter: nn.Parameter = lt.init.variance_scaling_(nn.Parameter(weight), 2.0, "fan_in", "normal")
    kernel: Tensor = lt.init.delta_orthogonal_(torch.empty(8, 8, 3, 3))
    fans: lt.init.Fans = lt.init.fans(weight)
    blocks: list[lt.init.WeightBlock] = lt.init.weight_blocks(nn.LSTM(4, 4))
    moments: lt.init.Moments = lt.init.moments("tanh", 0.0, 1.0)
    stability: lt.init.Stability = lt.init.stability("selu")
    points: list[lt.init.FixedPoint] = lt.init.fixed_points("tanh", 1.5)
    prediction: lt.init.NetworkPrediction = lt.init.predict(plain())
    layers: tuple[lt.init.LayerPrediction, ...] = prediction.layers
    selu: lt.init.Moments = lt.init.selu_fixed_point()
    print(
        len(filled), parameter.shape, kernel.shape, fans.fan_in, len(blocks), moments.mean, stability.chi, len(points)
    )
    print(len(layers), selu.variance, lt.init.selu_jacobian(0.0, 1.0), lt.init.selu_moments(0.0, 1.0))
    print(lt.init.gain("relu"), lt.init.one_step_gain("tanh"))
    report = lt.init.Report()
    model: nn.Sequential = lt.init.initialize(plain(), report=report)
    scaled: nn.Sequential = lt.init.lsuv_(plain(), x)
    entry: lt.init.Entry = report.changed[0]
    print(model[0], scaled[0], entry.layer, issubclass(lt.init.NoEffectWarning, UserWarning))


def change(x: Tensor, data: DataLoader[tuple[Tensor, ...]]) -> None:
    report = lt.surgery.Report()
    model: nn.Sequential = lt.surgery.insert_batch_norm(plain(), x, cls=nn.BatchNorm1d, report=report)
    model = lt.surgery.convert_batch_norm(model, lt.nn.GhostBatchNorm1d, ghost_size=8)
    model = lt.surgery.convert_batch_norm(model, nn.BatchNorm1d)
    model = lt.surgery.update_population_statistics(model, data)
    print(list(lt.surgery.tracked_batch_norms(model)))
    model = lt.surgery.fold_batch_norm(model.eval(), x)
    swapped: nn.Sequential = lt.surgery.swap_activation(plain(), "relu", "selu")
    normal: nn.Sequential = lt.surgery.self_normalize(plain())

    def softer(name: str, module: nn.Module) -> nn.Module | None:
        return nn.Tanh() if isinstance(module, nn.ReLU) else None

    wide: nn.Sequential = lt.surgery.widen_for_dropout(plain(), 0.5, weights="copied")
    replaced: nn.Sequential = lt.surgery.replace_modules(plain(), softer)
    entries: list[lt.surgery.Entry] = report.changed
    print(model[0], wide[0], swapped[1], normal[1], replaced[1], entries[0].what, lt.surgery.NoEffectWarning.__name__)


def combine(x: Tensor, y: Tensor, folder: str) -> None:
    ensemble = lt.BaggingEnsemble(Network, num_members=2, task="classification")
    batches = lt.BootstrapDataModule(TensorDataset(x, y), num_members=2, batch_size=16)
    trainer = L.Trainer(
        max_epochs=1,
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(ensemble, batches)
    prediction: le.Prediction = ensemble.predict(x)
    outside: le.OutOfBag | None = ensemble.out_of_bag
    thinned: le.Prediction = lt.MonteCarloDropout(nn.Sequential(plain(), nn.Dropout(0.1)), num_samples=4).predict(x)
    draws: le.Bootstrap = lt.bootstrap(range(10), num_members=2)
    found: le.Decomposition = lt.decompose(torch.randn(2, 10), torch.randn(10))
    metric: le.EnsembleDecomposition = lt.EnsembleDecomposition(num_members=2)
    print(prediction.mean.shape, outside, thinned.variance.shape, draws.indices.shape, metric)
    print(le.plot_error_by_size(found))
    print(le.BaggingEnsemble, le.BootstrapDataModule, le.MonteCarloDropout, le.bootstrap, le.decompose)


def subclass(x: Tensor, y: Tensor, data: DataLoader[tuple[Tensor, ...]]) -> None:
    classifier = lt.Classifier(plain(), 3, metrics=["Accuracy"], optimizer="SGD", scheduler="ConstantLR")
    classifier.fit_statistics(data)
    regressor = lt.Regressor(nn.Linear(8, 1), loss="huber")
    probabilities: Tensor = classifier.predict(x)
    values: Tensor = regressor.predict(x)
    print(probabilities.shape, values.shape, classifier.loss(classifier(x), y))


def main() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(64, 8), torch.randint(0, 3, (64,))
    data = DataLoader(TensorDataset(x, y), batch_size=16)
    with tempfile.TemporaryDirectory() as folder:
        any_loop(plain(), x, y)
        history = attach(data, folder)
        judge(history + look(x, y), folder)
        build(x, torch.randn(16, 3, 6, 6), data)
        start(x)
        change(x, data)
        combine(x, y, folder)
        subclass(x, y, data)
    print(lt.__version__)


if __name__ == "__main__":
    main()
