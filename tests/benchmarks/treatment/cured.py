"""One training of the clinic without and with its treatment, and its twin."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import lightning.pytorch as L
import torch

import lightning_tricks as lt
from lightning_tricks.experiments.training.optimizers import highest_rate, scale_rates

from ..clinic import train
from ..clinic.adversarial.kind import Plan
from ..clinic.adversarial.train import Recorder, fit, seed_all
from ..clinic.case import Case
from ..clinic.faults import planted
from ..clinic.setup import Setup


def trainer_of(case: Case, setup: Setup) -> L.Trainer:
    """As the whole training has it."""
    limit, algorithm = setup.clip
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=limit or None,
        gradient_clip_algorithm=algorithm,
        accumulate_grad_batches=case.accumulate,
        max_epochs=-1 if case.loop == "epochs" else 1,
        max_steps=case.steps,
    )


def begun(case: Case) -> tuple[Setup, train.Training]:
    """A training that was not made yet."""
    setup = planted(case)
    module = train.Training(setup)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.trainer = trainer_of(case, setup)
    return setup, module


def treated(case: Case, seconds: float, diagnosis: lt.Diagnosis) -> tuple[Setup, train.Training, lt.Treatment]:
    """The training after its treatment, with what is advised; the diagnosis is that of a checkup."""
    setup, module = begun(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        treatment = lt.treat(module, diagnosis, train.loaders_of(setup)[0], max_seconds=seconds)
    follow(setup, treatment.advice)
    return setup, module, treatment


def follow(setup: Setup, advice: dict[str, Any]) -> None:
    """What a person would do who reads the advice."""
    if "lr" in advice:
        setup.lr = advice["lr"]
    if "gradient_clip_val" in advice:
        setup.clip = advice["gradient_clip_val"] or 0.0, "norm"
    if "weight_decay" in advice:
        setup.decay = 0.0
    if "lr_scheduler" in advice:
        setup.factor = None
    if "zero_grad" in advice:
        setup.clears = True
    if "parameters" in advice:
        setup.spared, setup.optimized = [], None
    if "shuffle" in advice:
        setup.sorted_by = None
    if "batch_size" in advice:
        setup.batch = advice["batch_size"]
    if "targets" in advice:
        mean, scale = advice["targets"]
        data = setup.data
        setup.data = dataclasses.replace(data, y=(data.y - mean) / scale, y_val=(data.y_val - mean) / scale)


def result_of(case: Case, callback: L.Callback | None = None) -> float:
    """Accuracy or R^2 after a whole training."""
    setup = planted(case)
    return fitted(case, setup, train.Training(setup), callback)


def fitted(case: Case, setup: Setup, module: train.Training, callback: L.Callback | None = None) -> float:
    error = train.fit(module, train.loaders_of(setup), case, callback or L.Callback())
    last = module.validation[-1][2] if module.validation else 0.0
    return 0.0 if error or not math.isfinite(last) else max(last, 0.0)


def score_of(plan: Plan, seed: int, advice: Mapping[str, Any] = MappingProxyType({})) -> float:
    """The figure that proves a healthy training healthy, after all of it, at the learning rate that is advised."""
    module, configure = plan.module, plan.module.configure_optimizers

    def configured() -> Any:
        made = configure()
        if "lr" in advice:
            found = made[0][0] if isinstance(made, tuple) else made["optimizer"] if isinstance(made, dict) else made
            scale_rates(found, [], advice["lr"] / highest_rate(found))
        return made

    module.trainer, module.configure_optimizers = None, configured  # type: ignore[method-assign]
    seed_all(seed)
    error = fit(plan, Recorder(plan.look))
    if error:
        return math.nan
    module.eval()
    with torch.no_grad():
        return float(plan.score())
