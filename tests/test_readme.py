"""What the README says of the package is what the package says."""

import re
from pathlib import Path

import lightning_tricks as lt
from lightning_tricks.diagnosis import problem_table

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_table_of_problems_is_that_of_the_rules():
    assert problem_table() in README


def test_the_rule_of_ones_own_runs():
    (example,) = re.findall(r"```python\n(@lt\.rule.*?)```", README, re.S)
    names = {"lt": lt}
    exec(example, names)
    weighted = (lt.WeightedRecord("head", std=200.0),)
    diagnosis = lt.diagnose([lt.Snapshot(0, weighted=weighted)], rules=[names["find_loud_output"]])
    assert [finding.problem for finding in diagnosis.findings] == ["loud_output"]
    assert "loud output at head" in str(diagnosis)
