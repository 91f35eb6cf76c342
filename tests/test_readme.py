"""What the README says of the package is what the package says."""

import re
import shlex
import types
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
import yaml
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks as lt
from lightning_tricks.commands.arguments import parser
from lightning_tricks.diagnosis import problem_table

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_table_of_problems_is_that_of_the_rules():
    assert problem_table() in README


def blocks(containing, language="python"):
    return [block for block in re.findall(rf"```{language}\n(.*?)```", README, re.S) if containing in block]


@pytest.mark.filterwarnings("ignore")
def test_modules_and_ensembles_run_as_they_are_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Trainer(L.Trainer):
        def __init__(self, max_epochs):
            quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
            super().__init__(accelerator="cpu", max_steps=2, enable_checkpointing=False, **quiet)

    x, y = torch.randn(64, 6), torch.arange(64) % 10
    data = TensorDataset(x, y)
    names = {"lt": lt, "L": types.SimpleNamespace(Trainer=Trainer), "network": torch.nn.Linear(6, 10), "x": x}
    names |= {"train_loader": DataLoader(data, 16), "val_loader": DataLoader(data, 16), "train_dataset": data}
    (modules,) = blocks("lt.Classifier(network")
    exec(modules, names)
    assert names["model"].predict(x).shape == (64, 10)
    names["make_member"] = lambda: lt.Classifier(torch.nn.Linear(6, 10), 10)
    (ensembles,) = blocks("lt.BaggingEnsemble(make_member")
    exec(ensembles, names)
    assert names["ensemble"].out_of_bag.coverage > 0.9


def test_the_rule_of_ones_own_runs():
    (example,) = re.findall(r"```python\n(@lt\.rule.*?)```", README, re.S)
    names = {"lt": lt}
    exec(example, names)
    weighted = (lt.WeightedRecord("head", std=200.0),)
    diagnosis = lt.diagnose([lt.Snapshot(0, weighted=weighted)], rules=[names["find_loud_output"]])
    assert [finding.problem for finding in diagnosis.findings] == ["loud_output"]
    assert "loud output at head" in str(diagnosis)


def test_every_command_of_the_readme_is_one():
    """In the shell and in the workflow, which is YAML: the arguments are known to the parser."""
    (workflow,) = map(yaml.safe_load, blocks("runs-on:", "yaml"))
    assert set(workflow) == {True, "permissions", "jobs"}  # "on" is a yes in YAML 1.1, as GitHub knows
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    shell = [line.partition(" #")[0] for block in blocks("lightning-tricks", "bash") for line in block.splitlines()]
    shell += [step.get("run", "") for step in steps]
    commands = [line for line in shell if line.startswith("lightning-tricks ")]
    names = {parser().parse_args(shlex.split(command)[1:]).command for command in commands}
    assert names == {"checkup", "report", "compare", "summary", "problems"}
