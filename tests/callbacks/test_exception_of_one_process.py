"""The user's code raises in one of two processes: each ends with its own error, and nothing stays attached."""

import json

import pytest
import torch

from tests.two_processes import run_two

pytestmark = [
    pytest.mark.all,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed"),
]
SCRIPT = """
import json, os, warnings
import lightning_tricks as lt
from tests.callbacks.trainings import Classifier, batches, fit
from tests.conftest import attached

warnings.simplefilter("ignore")
rank = int(os.environ["LOCAL_RANK"])

class Stopping(Classifier):
    def training_step(self, batch, batch_idx):
        if rank == 1 and batch_idx == 2:
            raise ZeroDivisionError("of the user's")
        return super().training_step(batch, batch_idx)

before, doctor, said = attached(), lt.TrainingDoctor(every_n_steps=1), ""
try:
    fit(Stopping(), [doctor], batches(4), devices=2, strategy="ddp", use_distributed_sampler=False)
except BaseException as error:
    said = f"{type(error).__name__}: {error}"
with open(f"rank{rank}.json", "w") as file:
    json.dump([said, len(doctor.history), attached() == before, doctor.errors.failed], file)
os._exit(0)  # a process group of which one is gone cannot be taken down
"""


def test_an_exception_in_one_process(tmp_path):
    run_two(SCRIPT, tmp_path)
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert second == ["ZeroDivisionError: of the user's", 2, True, False]
    assert first[0]  # the other one has gone: the group's own error
    assert first[1:] == [2, True, False]
