"""The commands as a user types them: what they print and write, exit statuses, and errors in a line."""

from __future__ import annotations

import json
import runpy
import sys
from typing import get_args

import pytest
import torch

import lightning_tricks
from lightning_tricks import testing
from lightning_tricks.commands import main
from lightning_tricks.commands.arguments import FAIL_ON
from lightning_tricks.commands.checkup import structure
from lightning_tricks.commands.status import OF_STATE
from lightning_tricks.diagnosis import PROBLEMS
from lightning_tricks.diagnosis.diagnosis import State
from tests.commands.shop import CHECKUP, CODE, checkup
from tests.comparison.runs import trained
from tests.treatment.trained import only


def test_a_healthy_model_has_status_0(capsys):
    assert checkup("plain") == 0
    assert capsys.readouterr().out.startswith("Healthy so far")


def test_a_lightning_module_by_its_file_needs_no_loss(capsys):
    target = "shop_of_tests.py:"
    assert main(["checkup", f"{target}Own", "--data", f"{target}batch", *CHECKUP[:4]]) == 0
    assert "net." in capsys.readouterr().out


def test_a_sick_model_has_status_1_and_all_files(tmp_path, capsys):
    assert checkup("sick", "--json", "a.json", "--sarif", "a.sarif", "--html", "a.html") == 1
    assert "output does not fit the loss" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["state"] == "sick"
    (result,) = json.loads((tmp_path / "a.sarif").read_text())["runs"][0]["results"]
    line = result["locations"][0]["physicalLocation"]
    assert line["artifactLocation"]["uri"] == "shop_of_tests.py"
    assert CODE.splitlines()[line["region"]["startLine"] - 1].startswith("def sick")
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")


def test_json_on_the_terminal_is_nothing_else(capsys):
    assert checkup("plain", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["healthy"]


def test_what_is_accepted_does_not_count(tmp_path, capsys):
    assert checkup("sick", "--accepted", "ok.json") == 1
    assert "nothing is accepted: there is no file ok.json; --accept writes it" in capsys.readouterr().err
    assert checkup("sick", "--accept") == 2
    capsys.readouterr()
    assert checkup("sick", "--accepted", "ok.json", "--accept") == 0
    assert checkup("sick", "--accepted", "ok.json", "--sarif", "a.sarif") == 0
    assert "1 of 1 findings do not count" in capsys.readouterr().err
    (result,) = json.loads((tmp_path / "a.sarif").read_text())["runs"][0]["results"]
    assert result["suppressions"] == [{"kind": "external", "status": "accepted"}]
    assert checkup("plain", "--accepted", "ok.json") == 0
    assert "no longer found: output_mismatch at 2" in capsys.readouterr().err


def test_what_was_not_seen_is_unknown():
    assert checkup("frozen", "--ignore", "no_update") == 3


@pytest.mark.parametrize(
    ("model", "data", "more", "said"),
    [
        ("broken", "batch", (), "RuntimeError: no weights here"),
        ("leaves", "batch", (), "SystemExit"),
        ("plain", "narrow", (), "mat1 and mat2"),
        ("plain", "batch", ("--ignore", "dead_unit"), "did you mean 'dead_units'"),
    ],
)
def test_an_error_writes_a_log_of_a_run_that_failed(model, data, more, said, tmp_path, capsys):
    (tmp_path / "a.sarif").write_text("of an older run")
    assert checkup(model, "--sarif", "a.sarif", *more, data=data) == 2
    (run,) = json.loads((tmp_path / "a.sarif").read_text())["runs"]
    (invocation,) = run["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"], run["results"]) == (False, 2, [])
    (notification,) = invocation["toolExecutionNotifications"]
    assert said in notification["message"]["text"]
    assert said in capsys.readouterr().err


def test_a_log_that_cannot_be_written_is_the_error(tmp_path, capsys):
    (tmp_path / "a.sarif").mkdir()
    assert checkup("plain", "--sarif", "a.sarif") == 2
    assert "a.sarif" in capsys.readouterr().err


def test_the_traceback_is_there_for_who_asks(capsys):
    assert checkup("broken", "--traceback") == 2
    assert "Traceback" in capsys.readouterr().err


def test_report_judges_a_checkpoint_and_shows_a_table(tmp_path, capsys):
    doctor = trained(0)
    torch.save(doctor.state_dict(), tmp_path / "a.ckpt")
    assert main(["report", "a.ckpt", "--csv", "a.csv", "--html", "a.html"]) == 0
    assert capsys.readouterr().out.startswith("Healthy")
    assert main(["report", "a.csv"]) == 3
    shown = capsys.readouterr()
    assert shown.out.startswith("Not judged: a.csv")
    assert "linear, relu" in shown.out
    assert main(["report", "a.csv", "--html", "b.html"]) == 2
    assert main(["report", "nowhere.ckpt"]) == 2
    assert capsys.readouterr().err.count("error: ") == 2


def test_compare(tmp_path, capsys):
    for seed in (0, 1):
        trained(seed).to_csv(tmp_path / f"{seed}.csv")
    assert main(["compare", "0.csv", "1.csv", "--names", "old", "new"]) == 0
    assert capsys.readouterr().out.startswith("New does not part from old")
    text = (tmp_path / "1.csv").read_text()
    (tmp_path / "2.csv").write_text("\n".join(loud(line) for line in text.splitlines()) + "\n")
    assert main(["compare", "0.csv", "2.csv", "--json", "-"]) == 1
    first = json.loads(capsys.readouterr().out)["partings"][0]
    assert (first["measure"], first["layer"], first["step"]) == ("std", "2", 0)
    capsys.readouterr()
    assert main(["compare", "0.csv", "3.csv"]) == 2
    assert "there is no file 3.csv: did you mean 2.csv? in .: 0.csv, 1.csv, 2.csv" in capsys.readouterr().err


def loud(line):
    """A tenfold standard deviation at one layer."""
    if ",2,linear,std," not in line:
        return line
    head, _, value = line.rpartition(",")
    return f"{head},{10 * float(value)}"


def test_summary(capsys):
    assert main(["summary", "shop_of_tests:plain", "--data", "shop_of_tests:batch"]) == 0
    assert "163 parameters" in capsys.readouterr().out


def test_problems(capsys):
    assert main(["problems"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name} " in listed for name in PROBLEMS)
    assert main(["problems", "dead_units"]) == 0
    told = capsys.readouterr().out
    assert "What helps: SELU or leaky ReLU" in told
    assert "  unit: one output of a layer: a neuron or a channel" in told.partition("The words:")[2]
    assert main(["problems", "--json", "-"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(PROBLEMS)
    assert main(["problems", "dead_unit"]) == 2


def test_it_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lightning_tricks", "problems", "overfitting"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("lightning_tricks", run_name="__main__")
    assert ended.value.code == 0
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "exit status" in capsys.readouterr().out


def test_what_stands_in_the_arguments_is_what_the_package_knows():
    assert FAIL_ON == testing.FAIL_ON
    assert set(OF_STATE) == set(get_args(State))


def test_a_state_that_loads_may_still_need_other_units():
    plain = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Sigmoid())
    other = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.SELU())
    assert structure(plain) != structure(other)
    assert structure(plain) == structure(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Sigmoid()))


@pytest.mark.usefixtures("usual_trials")
def test_a_treatment_is_made_told_and_saved(tmp_path, capsys, monkeypatch):
    """In memory: the file has what the model became, and fits what the factory gives."""
    only(monkeypatch, "initialize")
    more = ("--treat", "--save", "a.pt", "--json", "a.json", "--html", "a.html", "--seed", "1")
    assert checkup("Faint", *more, data="many") == 1
    shown = capsys.readouterr()
    changed = "of the way, on copies of the network as it was given: 1 thing was changed in the model"
    assert changed in " ".join(shown.out.split())
    assert "* proven on two seeds" in shown.out
    assert "fits what shop_of_tests:Faint gives" in shown.err
    state = torch.load(tmp_path / "a.pt")
    module = runpy.run_path("shop_of_tests.py")
    module["Faint"]().load_state_dict(state)
    assert state["net.0.weight"].std() > 0.1
    assert json.loads((tmp_path / "a.json").read_text())["treatment"]["applied"][0]["text"]
    assert changed in (tmp_path / "a.html").read_text()


@pytest.mark.usefixtures("usual_trials")
def test_where_nothing_was_changed_nothing_is_saved(tmp_path, capsys, monkeypatch):
    only(monkeypatch, "initialize")
    assert checkup("plain", "--treat", "--save", "a.pt") == 0
    assert "nothing was changed in the model" in capsys.readouterr().err
    assert not (tmp_path / "a.pt").exists()
    assert checkup("plain", "--save", "a.pt") == 2
    assert "give --treat" in capsys.readouterr().err


def test_the_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"lightning-tricks {lightning_tricks.__version__}\n"
