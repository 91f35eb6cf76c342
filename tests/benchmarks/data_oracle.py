"""cleanlab as an oracle for the benchmark of data faults, where it is installed: the share of wrong labels it tells.

It is given out-of-fold probabilities of the better of two usual models: a logistic regression, and randomised trees.
"""

from __future__ import annotations

import importlib.util

import numpy as np
from torch import Tensor

from tests.benchmarks.data_sets import CLASSES

HEALTHY = (
    *(f"{name}{how}" for name in CLASSES for how in ("", ", oversampled", ", augmented")),
    *(f"overlap {apart}" for apart in (0.5, 1.0, 1.5, 2.0, 3.0)),
    *("few values", "measured twice", "disjoint classes", "clicks"),
)
HEALTHY = tuple(name for name in HEALTHY if name != "tokens, augmented")


def is_missing() -> bool:
    return importlib.util.find_spec("cleanlab") is None


def share_of_wrong(x: Tensor, y: Tensor) -> float:
    """Label issues over labels."""
    from cleanlab.filter import find_label_issues
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    z, labels = _features(x), y.numpy()
    models = LogisticRegression(max_iter=300), ExtraTreesClassifier(200, random_state=0)
    said = [cross_val_predict(model, z, labels, cv=5, method="predict_proba") for model in models]
    better = max(said, key=lambda each: float((each.argmax(1) == labels).mean()))
    return float(find_label_issues(labels, better, n_jobs=1).mean())


def _features(x: Tensor) -> np.ndarray:
    """Standardised columns; of sentences how often each word occurs."""
    z = x.flatten(1).double().numpy()
    if not x.is_floating_point():
        z = np.stack([np.bincount(row, minlength=int(x.max()) + 1) for row in x.numpy()]).astype(float)
    return np.asarray((z - z.mean(0)) / np.maximum(z.std(0), 1e-6))
