"""Hydra makes the callbacks of a configuration, in a working directory of its own, where their files land."""

import sys
from pathlib import Path

import pytest

from tests.callbacks.trainings import Classifier, batches, fit

hydra = pytest.importorskip("hydra", reason="hydra-core is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("moves", [True, False])
def test_callbacks_of_a_configuration(moves, tmp_path, monkeypatch, nothing_left):
    monkeypatch.chdir(tmp_path)
    seen = []

    @hydra.main(version_base="1.2", config_path=None)
    def train(config):
        folder = Path(hydra.core.hydra_config.HydraConfig.get().runtime.output_dir)
        looking = [hydra.utils.instantiate(each) for each in config.callbacks.values()]
        options = {} if moves else {"default_root_dir": str(folder)}
        trainer = fit(Classifier(), looking, batches(3), **options)
        trainer.save_checkpoint(folder / "last.ckpt")
        again = fit(Classifier(), looking, batches(3), max_epochs=2, ckpt_path=folder / "last.ckpt", **options)
        seen.append((folder, looking, again.global_step))

    arguments = {
        "hydra.run.dir": "outputs/now",
        "hydra.job.chdir": moves,
        "hydra/job_logging": "none",
        "hydra/hydra_logging": "none",
        "+callbacks.doctor._target_": "lightning_tricks.TrainingDoctor",
        "+callbacks.doctor.every_n_steps": 1,
        "+callbacks.doctor.layers": "[net.0,net.1]",  # a list of OmegaConf, not of Python
        "+callbacks.doctor.ignore": "[bias_shift]",
        "+callbacks.activations._target_": "lightning_tricks.ActivationMonitor",
        "+callbacks.activations.layers": "net.*",
    }
    monkeypatch.setattr(sys, "argv", ["train.py", *(f"{name}={value}" for name, value in arguments.items())])
    train()
    (folder, looking, steps), *_ = seen
    assert folder == tmp_path / "outputs" / "now"
    assert steps == 6
    assert [len(monitor.history) for monitor in looking] == [6, 4]
    assert not any(monitor.errors.failed for monitor in looking)
    assert list(looking[0].ignore) == ["bias_shift"]
    written = {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("history.csv")}
    assert written == {("outputs", "now")}
    assert (folder / "lightning_logs" / "version_0" / "doctor" / "diagnosis.html").exists()
