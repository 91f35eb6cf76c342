"""A rule, an activation and a measure are each added in one file, by CONTRIBUTING's own example."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Behind which line of a file that exists an example is put.
BEHIND = {"entries.py": "ENTRIES = (\n", "activations.py": "    patterns: int = 0\n"}

RULE = """
from lightning_tricks.diagnosis import PROBLEMS, problem_table
assert "tiny_batch" in PROBLEMS
net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
diagnosis = lt.checkup(net, (torch.randn(3, 8), torch.randn(3, 1)), nn.functional.mse_loss)
(found,) = [finding for finding in diagnosis.findings if finding.problem == "tiny_batch"]
assert "tiny batch" in str(diagnosis) and "use larger batches" in str(diagnosis)
assert "patterns 3, threshold 4" in found.why()
assert lt.diagnose(diagnosis.history, ignore=["tiny_batch"]).findings != diagnosis.findings
"""
ACTIVATION = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 1)
    def forward(self, x):
        return self.two(torch.erf(self.one(x)))
net = Net()
with lt.probe(net) as p:
    net(torch.randn(64, 8)).sum().backward()
(record,) = p.snapshot().activations
assert record.function == "erf" and 0.9 < record.linearity < 1.0
assert 1.0 < lt.init.one_step_gain("erf") < 1.6
"""
MEASURE = """
net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
nn.init.constant_(net[0].bias, 5.0)
diagnosis = lt.checkup(net, (torch.randn(64, 8), torch.randn(64, 1)), nn.functional.mse_loss)
record = diagnosis.history[-1].activations[0]
assert record.offset > 2.0
assert lt.Snapshot.from_dict(diagnosis.history[-1].to_dict()).activations[0].offset == record.offset
assert " far" in str(diagnosis)
assert "offset" in diagnosis.to_csv("history.csv").read_text()
assert "offset" in record.logged("activations")
"""
EXPERIMENT = """
from lightning_tricks.experiments.loss_at_zero import loss_at_zero
net, batch = nn.Linear(8, 1), (torch.randn(64, 8), torch.randn(64, 1))
found = loss_at_zero(net, batch, nn.functional.mse_loss)
assert isinstance(found, lt.Experiment) and found.numbers["loss"] > 0
(tried,) = lt.checkup(net, batch, nn.functional.mse_loss, experiments="loss_at_zero").experiments
assert tried.numbers == found.numbers
"""


def examples() -> dict[str, str]:
    blocks = re.findall(r"```python\n# (lightning_tricks/\S+)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    return dict(blocks)


@pytest.mark.parametrize(
    ("file", "check"),
    [
        ("lightning_tricks/diagnosis/rules/tiny_batch.py", RULE),
        ("lightning_tricks/activations/entries.py", ACTIVATION),
        ("lightning_tricks/probes/records/activations.py", MEASURE),
        ("lightning_tricks/experiments/loss_at_zero.py", EXPERIMENT),
    ],
    ids=["rule", "activation", "measure", "experiment"],
)
def test_one_file_is_all_that_it_takes(file: str, check: str, tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "lightning_tricks", tmp_path / "lightning_tricks", ignore=shutil.ignore_patterns("__pycache__")
    )
    path, example = tmp_path / file, examples()[file]
    if path.exists():
        before = path.read_text()
        behind = BEHIND[path.name]
        assert before.count(behind) == 1
        path.write_text(before.replace(behind, f"{behind}{example}"))
    else:
        path.write_text(example)
    script = f"import torch\nfrom torch import nn\nimport lightning_tricks as lt\ntorch.manual_seed(0)\n{check}"
    command = [sys.executable, "-W", "ignore", "-c", script]
    result = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
