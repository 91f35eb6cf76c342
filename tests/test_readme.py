"""What the README says of the package is what the package says, and what it shows runs as it is shown."""

import re
import shlex
import subprocess
from pathlib import Path

import lightning
import pytest

import lightning_tricks as lt
from lightning_tricks.commands.main import parser
from lightning_tricks.diagnosis import problem_table

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_table_of_problems_is_that_of_the_rules():
    assert problem_table() in README


class Short(lightning.Trainer):
    """Two epochs at most, and nothing on the screen but what the package prints."""

    def __init__(self, max_epochs, callbacks=None):
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        super().__init__(accelerator="cpu", max_epochs=min(max_epochs, 2), callbacks=callbacks, logger=False, **quiet)


@pytest.mark.filterwarnings("ignore")
def test_python_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    """One block after the other, as a reader copies them, with nothing defined that the README does not define."""
    pytest.importorskip("sklearn", reason="scikit-learn comes with the extra 'examples'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lightning, "Trainer", Short)
    names, printed = {"__name__": "readme"}, []
    for block in blocks("python"):
        known = set(names)
        exec(compile(block, "README.md", "exec"), names)
        for name in set(names) - known:
            if name.startswith("test_"):
                names[name]()
        printed.append(capsys.readouterr().out)
    assert re.search("^Sick: .*because the gradient vanishes at network.0.$", printed[0], re.M)
    assert names["cured"].diagnosis.state == "healthy", printed[0]
    assert names["model"].predict(names["x"]).shape == (len(names["x"]), 10)
    assert names["ensemble"].out_of_bag.coverage > 0.9
    weighted = (lt.WeightedRecord("head", std=200.0),)
    diagnosis = lt.diagnose([lt.Snapshot(0, weighted=weighted)], rules=[names["find_loud_output"]])
    assert [finding.problem for finding in diagnosis.findings] == ["loud_output"]
    assert "loud output at head" in str(diagnosis)


def commands():
    """Every command of the README's shell blocks and of its workflow."""
    shell = [*blocks("bash"), *re.findall(r"- run: (?:>\n)?((?:.|\n {10})+)", "".join(blocks("yaml")))]
    lines = [line for block in shell for line in re.sub(r"\n {10,}", " ", block).splitlines()]
    words = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [command for command in words if command]


@pytest.mark.parametrize("block", blocks("bash"))
def test_shell_is_shell(block):
    assert subprocess.run(["bash", "-n", "-c", block], capture_output=True).returncode == 0


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_are_there(command):
    tool, *rest = command
    if tool == "lightning-tricks":
        parser().parse_args(rest)  # ends with an error where a word is not known
        assert PROJECT["scripts"][tool] == "lightning_tricks.commands:main"
    elif tool == "python":
        assert rest[0] == "-m" or (ROOT / rest[0]).exists()
    else:
        assert command[:2] == ["pip", "install"]
        asked = {extra for word in rest for part in re.findall(r"\.\[(.*)\]", word) for extra in part.split(",")}
        assert asked <= set(PROJECT["optional-dependencies"])


def test_every_name_of_the_package_is_there():
    for path in sorted(set(re.findall(r"\blt((?:\.[A-Za-z_]\w*)+)", README))):
        found = lt
        for name in path[1:].split("."):
            found = getattr(found, name)


def test_links_lead_somewhere():
    local = [link for link in re.findall(r"\]\(([^)]*)\)", README) if not link.startswith("http")]
    headings = {
        "#" + re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in re.findall("^#+ (.*)", README, re.M)
    }
    assert [link for link in local if link not in headings and not (ROOT / link).exists()] == []


def test_badges_and_examples_are_true():
    assert PROJECT["requires-python"] == ">=3.10"
    assert "badge/python-3.10%2B" in README
    assert PROJECT["license"] == "Apache-2.0"
    assert "badge/licence-Apache--2.0" in README
    for path in (ROOT / "examples").glob("[0-9]*.py"):
        assert f"](examples/{path.name})" in README
