"""The law of the ensemble error on the data of the example."""

import runpy
from pathlib import Path

import pytest

from lightning_tricks.ensemble import BaggingEnsemble, BootstrapDataModule, decompose

FOLDER = Path(__file__).parents[2] / "examples"


@pytest.mark.filterwarnings("ignore")
def test_the_law_holds_on_friedmans_function():
    """400 patterns, noise 1, 32 members: the ratio of the errors, and the out-of-bag score beside the test score."""
    example = runpy.run_path(str(FOLDER / "05_bagging_deep_networks.py"))
    train, test = example["friedman"]()
    ensemble = BaggingEnsemble(
        lambda: example["Network"]([10, 64, 64, 1], 0.0, False, 3e-3, 0.01), 32, task="regression", backend="vmap"
    )
    example["trainer"](60).fit(ensemble, BootstrapDataModule(train, 32, 64))
    x, y = test.tensors
    members = ensemble.predict(x).members.squeeze(-1)
    whole = decompose(members, y)
    fitted, other = decompose(members[:, :1000], y[:1000]), decompose(members[:, 1000:], y[1000:])
    assert float(whole.ratio) == pytest.approx(0.68, abs=0.03)
    assert abs(float(whole.ensemble_error - (whole.mean_member_error - whole.ambiguity))) < 1e-12
    assert abs(float(whole.ratio - whole.predicted_ratio())) < 1e-10
    assert float(fitted.predicted_ratio()) == pytest.approx(float(other.ratio), abs=0.05)
    score = 1 - float(whole.ensemble_error / y.double().var(unbiased=False))
    assert score > 0.88
    assert ensemble.out_of_bag.score == pytest.approx(score, abs=0.015)
