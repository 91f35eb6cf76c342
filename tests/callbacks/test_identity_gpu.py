"""The same on a GPU: with all monitors at every step a training is bit for bit the one without."""

import pytest
import torch

from tests.callbacks.test_identity import CASES, train
from tests.callbacks.trainings import Classifier, cnn, monitors, same

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.filterwarnings("ignore"),  # torch's and Lightning's own about devices
]
GPU_CASES = {
    **CASES,
    "fp16-mixed": (lambda: Classifier(cnn()), {"precision": "16-mixed"}),
    "fp16-mixed, clipped": (lambda: Classifier(cnn()), {"precision": "16-mixed", "gradient_clip_val": 0.1}),
}


@pytest.fixture(autouse=True)
def _deterministic(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("case", GPU_CASES)
def test_same_bit_for_bit(case):
    make, options = GPU_CASES[case]
    options = {**options, "accelerator": "gpu"}
    looking = monitors()
    without, generator = train(make, options, []), torch.cuda.get_rng_state()
    assert same(without, train(make, options, looking))
    assert torch.equal(generator, torch.cuda.get_rng_state())
    assert looking[0].history
    for snapshot in looking[2].history:
        assert not [reason for reason in snapshot.not_seen.values() if "could not be read" in reason]
