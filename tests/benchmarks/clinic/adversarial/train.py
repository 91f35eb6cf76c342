"""One run, through Lightning's Trainer with a TrainingDoctor; the proving figure is asserted."""

from __future__ import annotations

import dataclasses
import random
import tempfile
import time
import traceback
import warnings
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch

from ..judging.harm import overfits
from ..train import Recorder as Looks
from ..train import Run
from .case import HealthyCase
from .cases import all_kinds
from .kind import Plan

UNFIT = "not healthy by its own measure"


@dataclasses.dataclass(frozen=True)
class HealthyRun(Run):
    """A run with its proving figure; validations are stored at the step after the look that they follow.

    Args:
        measure, score, at_least: What proves it healthy, what it reached and what was needed.
    """

    measure: str = ""
    score: float = float("nan")
    at_least: float = float("nan")


class Recorder(Looks):
    """Keeps also the validation losses with the look that they follow, and the loss of every batch."""

    def __init__(self, every_n_steps: int) -> None:
        super().__init__(every_n_steps)
        self.validations: list[tuple[int, float, float]] = []
        self.losses: list[torch.Tensor] = []

    def on_validation_loss(self, loss: float) -> None:
        if self.looks:
            self.validations.append((self.looks[-1].step + 1, loss, float("nan")))
        super().on_validation_loss(loss)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor):
            self.losses.append(loss.detach())
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def train(case: HealthyCase) -> HealthyRun:
    """Run a case, from its own random numbers."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    kind = all_kinds()[case.kind]
    seed_all(case.seed)
    plan = kind.build(case.seed)
    recorder = Recorder(plan.look)
    seed_all(case.seed)
    error = fit(plan, recorder) or recorder.error
    score = float("nan")
    if not error:
        plan.module.eval()
        with torch.no_grad():
            score = float(plan.score())
        if not score >= kind.at_least:
            error = f"{UNFIT}: {kind.measure} {score:.3g} < {kind.at_least:g}"
    run = HealthyRun(
        case,  # type: ignore[arg-type]
        tuple(recorder.looks),
        tuple(torch.stack(recorder.losses).float().tolist()) if recorder.losses else (),
        tuple(recorder.validations),
        error,
        time.perf_counter() - begun,
        kind.measure,
        score,
        kind.at_least,
    )
    if not error and run.validation and overfits(run):
        return dataclasses.replace(run, error=f"{UNFIT}: the validation loss rose while the training loss fell")
    return run


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def fit(plan: Plan, callback: L.Callback) -> str:
    """Train; the traceback if that fails."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=plan.epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            callbacks=[callback],
            **plan.options,
        )
        try:
            trainer.fit(plan.module, plan.train, plan.val)
        except Exception:
            return traceback.format_exc()
    return ""
