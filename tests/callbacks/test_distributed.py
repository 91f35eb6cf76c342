"""Two processes: both have the history of the joint batch, and files are written once."""

import json

import pytest
import torch

import lightning_tricks as lt
from tests.callbacks.monitoring.test_shared_probe import MEASURES, Joint, values
from tests.callbacks.trainings import batches, fit
from tests.two_processes import run_two

SCRIPT = """
import json, os, warnings
from lightning_tricks.callbacks.monitoring import shared_probe
from tests.callbacks.monitoring.test_shared_probe import Joint
from tests.callbacks.trainings import batches, fit
import lightning_tricks as lt

warnings.simplefilter("ignore")
rank = int(os.environ["LOCAL_RANK"])
options = dict(devices=2, strategy="ddp", default_root_dir=os.getcwd(), use_distributed_sampler=False)
def share(data):
    return [tuple(part.chunk(2)[rank] for part in batch) for batch in data]

data, validation = share(batches(3, size=16)), share(batches(2, size=16, seed=3))

def run():
    looking = [lt.GradientFlowMonitor(every_n_steps=1), lt.TrainingDoctor(every_n_steps=1, max_patterns=None)]
    trainer = fit(Joint(), looking, data, validation=validation, num_sanity_val_steps=0, **options)
    return {"history": [snapshot.to_dict() for snapshot in looking[1].history], "step": trainer.global_step}

def broken(probe):
    raise RuntimeError("only here")

works = run()
if rank == 1:
    shared_probe.Probe.snapshot = broken
with open(f"rank{rank}.json", "w") as file:
    json.dump([works, run()], file)
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """For each process, what a training gave, and what one gave in which the second process cannot be probed."""
    folder = tmp_path_factory.mktemp("ranks")
    outputs = run_two(SCRIPT, folder)
    results = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    return list(zip(*results, strict=True)), outputs, folder


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_history_of_the_joint_batch(two_processes):
    ((first, second), _), outputs, folder = two_processes
    assert first == second
    alone = lt.TrainingDoctor(every_n_steps=1, max_patterns=None)
    fit(Joint(), [alone], batches(3, size=16), validation=batches(2, size=16, seed=3), num_sanity_val_steps=0)
    assert [snapshot["step"] for snapshot in first["history"]] == [0, 1, 2]
    # The drift of the mean is that of each process by its own input, whose mean is less well known: of the same size.
    equal = [measure for measure in MEASURES if measure != "mean_drift"]
    for ours, snapshot in zip(first["history"], alone.history, strict=True):
        joint = lt.Snapshot.from_dict(ours)
        assert joint.loss == pytest.approx(snapshot.loss, rel=1e-5)
        assert joint.recent_losses == pytest.approx(snapshot.recent_losses, rel=1e-5)
        ours, whole = joint.losses[0].measures(), snapshot.losses[0].measures()
        # How far patterns differ is that within a process: the means of each output are not known of the others.
        assert ours.pop("input_variation") == pytest.approx(whole.pop("input_variation"), rel=0.3)
        assert ours == pytest.approx(whole, rel=1e-4, nan_ok=True)
        assert values(joint, *equal) == pytest.approx(values(snapshot, *equal), rel=2e-4, abs=1e-6)
        assert values(joint, "mean_drift") == pytest.approx(values(snapshot, "mean_drift"), rel=1.0)
    assert joint.validation_loss == pytest.approx(alone.history[-1].validation_loss, rel=1e-5)
    assert (folder / "lightning_logs" / "version_0" / "doctor" / "history.csv").exists()
    assert sum("Page, pictures and history" in output for output in outputs) == 1


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_a_monitor_that_fails_in_one_process_stops_in_all(two_processes):
    (_, results), *_ = two_processes
    assert [result["step"] for result in results] == [3, 3]  # the training went on, and nobody waits for anybody
    assert [result["history"] for result in results] == [[], []]
