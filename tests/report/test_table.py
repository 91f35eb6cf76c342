import dataclasses
import io
import re
import sys

import pytest
from rich.console import Console

from lightning_tricks.diagnosis import Finding, Remedy
from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.history.error_signal import ErrorSignalByLayer
from lightning_tricks.probes import Snapshot
from lightning_tricks.report import Diagnosis, table
from lightning_tricks.report.layers import COLUMNS
from lightning_tricks.report.words import number

SUBJECTS = ["sigmoids", "rectifiers", "deep", "linear", "spoilt"]


def rich_text(diagnosis, width, **options):
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(diagnosis)
    return console.file.getvalue()


def test_a_healthy_model_shows_its_layers_and_no_finding(sigmoids):
    shown = str(Diagnosis([], sigmoids))
    assert shown.startswith("Healthy so far: no fault found in 3 steps, too early to tell whether it learns.\n")
    assert "what to do" not in shown
    for name in ("0, 1", "10, 11", "12"):
        assert re.search(rf"^  {name} +linear", shown, re.MULTILINE)
    record = sigmoids[-1].activations[0]
    line = next(line for line in shown.splitlines() if line.startswith("  0, 1"))
    assert line.split()[4:8] == [
        number(record.mean),
        number(record.std),
        f"{record.linearity:.3f}",
        f"{record.saturation:.0%}",
    ]
    signal = ErrorSignalByLayer.of(sigmoids[-1])
    assert COLUMNS["signal"].write(signal.ratio) in line.split()


def test_one_finding_is_told_in_full(second, sigmoids):
    shown = " ".join(str(Diagnosis([second], sigmoids)).split())
    assert "1. warning: input not normalized in the whole model, since step 0" in shown
    assert "measured input mean 4.98" in shown
    assert "why The input has a mean of 5." in shown
    assert "what to do 1. start with weights for this activation: lt.init.lecun_normal_(layer.weight) (at 0)" in shown
    assert "2. use self-normalising units: lt.nn.SELULinear (SELU with LeCun initialisation)" in shown
    assert "it causes" not in shown
    assert "\n!" not in shown


def test_consequences_are_folded_below_their_cause(cause, second, sigmoids):
    shown = str(Diagnosis([cause, second], sigmoids))
    lines = shown.splitlines()
    assert lines[0].startswith("Sick: the gradient vanishes because the weights begin at the wrong scale at")
    blocks = [line for line in lines if re.match(r"\d\. (info|warning|critical): ", line)]
    assert [block[:12] for block in blocks] == ["1. warning: ", "2. warning: "]
    at = next(i for i, line in enumerate(lines) if line.startswith("   it causes"))
    assert lines[at].endswith("- critical: vanishing gradient at layer 3: slope -0.514; loss NaN")
    narrow = table.text(Diagnosis([cause]), 70).splitlines()
    assert narrow[-2].endswith("- critical: vanishing gradient at layer 3: slope -0.514")  # the loss has no room
    assert "- warning: linear units at layer 5: linearity 1.000" in lines[at + 1]
    assert lines[at + 1].startswith(" " * 14)
    assert "pre-activation std 0.147; saturation 25.0 %" in shown
    assert "weighted layer" not in shown  # it was None
    marked = [line for line in lines if re.match(r"! \S", line)]
    assert [line.split()[1] for line in marked] == ["2,", "4,"]  # layers 2 and 3 share a row, and 5 stands with 4


def test_a_long_model_is_shortened(deep, cause):
    shown = str(Diagnosis([dataclasses.replace(cause, layer="120")], deep))
    assert len(shown.splitlines()) < 70
    assert re.search(r"^! 120, 121 ", shown, re.MULTILINE)
    left_out = [int(count) for count in re.findall(r"\.\.\. (\d+) more layers \.\.\.", shown)]
    rows = len(re.findall(r"^[! ] \d+(, \d+)? +linear", shown, re.MULTILINE))
    assert rows + sum(left_out) == 101


def test_what_was_tried_is_said_whole(sigmoids):
    answered = [
        Experiment("free_outputs", "?", f"a guess has 2, the floor {'0' * 100}"),
        Experiment("reach", "?", "all"),
    ]
    silent = [Experiment(name, "?", "it has two optimisers", conclusive=False) for name in ("never_read", "own_input")]
    shown = table.text(Diagnosis([], sigmoids, experiments=[answered[0], *silent, answered[1]]), 60).splitlines()
    begin = shown.index("What was tried, with network and data as they were given")
    end = shown.index("   reach: all")
    assert shown[begin + 1].startswith("   free outputs: a guess has 2")
    assert all(line.startswith("      ") for line in shown[begin + 2 : end])
    assert "".join(shown[begin + 1 : end]).count("0") == 100  # none is cut
    assert " ".join(" ".join(shown[end + 1 : end + 3]).split()) == (
        "not judged: never read, own input (it has two optimisers)"
    )
    assert max(map(len, shown)) <= 60
    assert "What was tried" not in table.text(Diagnosis([], sigmoids), 60)


def test_the_loss_is_told_as_a_share_of_the_way(sigmoids):
    history = [dataclasses.replace(snapshot, loss=1.0, losses=()) for snapshot in sigmoids]
    way = {"guess": 2.0, "floor": 0.0}
    known = Diagnosis([], history, experiments=[Experiment("free_outputs", "?", "!", way)])
    assert "(a guess has 2.00, the floor is 0: 50.0 % of the way)" in " ".join(table.text(known).split())
    boundless = {"guess": float("nan"), "floor": float("-inf")}
    unknown = Diagnosis([], sigmoids, experiments=[Experiment("free_outputs", "?", "!", boundless)])
    assert "of the way" not in table.text(unknown)


def test_what_was_not_seen_is_said(sigmoids):
    missed = {f"block.{i}": "scripted module: nothing inside it is seen" for i in range(9)}
    shown = str(Diagnosis([], [dataclasses.replace(sigmoids[0], not_seen=missed), sigmoids[1]]))
    assert "- block.0: scripted module" in shown
    assert "and 3 more" in shown
    assert "block.8" not in shown
    assert "Not seen" not in str(Diagnosis([], sigmoids))


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_it_fits_the_terminal(subject, width, cause, second, request):
    diagnosis = Diagnosis([cause, second], request.getfixturevalue(subject))
    lines = table.text(diagnosis, width).splitlines()
    assert max(map(len, lines)) <= width
    head = next(line for line in lines if line.startswith("  layer"))
    assert ("std a" in head) == (subject != "spoilt")  # nothing finite is left there


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("width", [60, 80, 110])
def test_rich_shows_the_same_content(subject, width, cause, request):
    diagnosis = Diagnosis([cause], request.getfixturevalue(subject))
    plain = [line.rstrip() for line in table.text(diagnosis, width).splitlines()]
    assert [line.rstrip() for line in rich_text(diagnosis, width).splitlines()] == plain


def test_rich_colours_by_severity(cause, second, sigmoids):
    shown = rich_text(Diagnosis([cause, second], sigmoids), 80, force_terminal=True, color_system="standard")
    lines = shown.splitlines()
    assert lines[0].startswith("\x1b[1;31mSick")  # bold red: the worst finding is critical
    assert any(line.startswith("\x1b[33m1. warning") for line in lines)
    assert any("\x1b[1;31m   it causes  - critical" in line for line in lines)
    assert "\x1b[1;32mHealthy" in rich_text(Diagnosis([], sigmoids), 80, force_terminal=True, color_system="standard")


def test_a_terminal_without_colours_gets_none(cause, sigmoids):
    file = io.StringIO()
    Diagnosis([cause], sigmoids).show(file)
    assert "\x1b" not in file.getvalue()
    assert "poor initialization" in file.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_without_rich_it_is_plain_text(encoding, cause, sigmoids, monkeypatch):
    for name in [name for name in sys.modules if name == "rich" or name.startswith("rich.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    diagnosis = Diagnosis([dataclasses.replace(cause, explanation="δ is small.")], sigmoids)
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    diagnosis.show(file)
    file.flush()
    written = file.buffer.getvalue().decode(encoding)
    assert written == str(diagnosis).replace("δ", "δ" if encoding == "utf-8" else "?") + "\n"


@pytest.mark.parametrize(
    "evidence", [{"a": None}, {"a": float("nan"), "b": float("-inf")}, {"a": []}, {"a": "x" * 200}, {"": {}}]
)
@pytest.mark.parametrize("history", [[], [Snapshot()], [Snapshot(5, not_seen={"": ""})]])
def test_odd_findings_and_histories_are_shown(evidence, history):
    odd = Finding(
        "non_finite", "a" * 150, "critical", 0, evidence, "", (), (Finding("overfitting", None, "info", 0, evidence),)
    )
    shown = str(Diagnosis([odd], history))
    assert shown.startswith("Sick: a value became NaN or infinite")
    assert max(map(len, shown.splitlines())) <= 100
    assert rich_text(Diagnosis([odd], history), 80)


def test_many_findings_are_counted(second):
    shown = str(Diagnosis([dataclasses.replace(second, consequences=(second,) * 20)] * 15))
    assert "... and 3 more, in diagnosis.findings" in shown
    assert shown.count("- and 12 more") == 12


def renamed(history, rename):
    """The history with other names, the last step only."""
    last = history[-1]
    changed = {
        kind: tuple(dataclasses.replace(record, name=rename(record.name)) for record in getattr(last, kind))
        for kind in ("activations", "weighted")
    }
    return [dataclasses.replace(last, parameters=(), **changed)]


def names_shown(shown):
    """The names in the rows of the table."""
    return re.findall(r"^[! ] (\S+(?:, \S+)?) +(?:linear|sigmoid)(?=[ ,\n])", shown, re.MULTILINE)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_two_rows_have_one_name(width, sigmoids):
    def rename(name):
        return f"net.layer{int(name) // 2}.some_quite_long_block_name.with_more.linear"

    lines = table.text(Diagnosis([], renamed(sigmoids, rename)), width).splitlines()
    shown = names_shown("\n".join(lines))
    assert len(shown) == len(set(shown)) == 7
    assert max(map(len, lines)) <= width


def test_the_path_that_all_names_share_is_said_once(sigmoids):
    shown = str(Diagnosis([], renamed(sigmoids, lambda name: f"model.net.{name}")))
    assert "  full names begin with model.net.\n" in shown
    assert names_shown(shown) == ["0, 1", "2, 3", "4, 5", "6, 7", "8, 9", "10, 11", "12"]
    assert "full names begin with" not in str(Diagnosis([], sigmoids))


def test_the_names_come_before_the_numbers(sigmoids):
    """A name of 24 letters is shown whole where columns have to go for it."""
    shown = table.text(Diagnosis([], renamed(sigmoids, lambda name: f"encoder{int(name):02}.linear_layer_x")), 60)
    assert names_shown(shown) == [f"encoder{i:02}.linear_layer_x" for i in range(13)]
    assert "(hidden here: passes, mean a" in shown


def test_columns_stand_below_their_headings(sigmoids):
    """A negative number that needs an exponent must not shift its row."""
    last = sigmoids[-1]
    odd = tuple(dataclasses.replace(record, mean=-2.2e-3, std=2.2e-12) for record in last.activations)
    lines = table.text(Diagnosis([], [dataclasses.replace(last, activations=odd, weighted=())]), 100).splitlines()
    head = next(line for line in lines if line.startswith("  layer"))
    for line in lines:
        if re.match(r"  \d+ +sigmoid", line):
            end = head.index("mean a") + len("mean a")
            assert line[:end].endswith(" -2.2e-3")
            assert line[end : end + 8] == " 2.2e-12"


def test_a_hidden_column_is_named(sigmoids):
    narrow, wide = (table.text(Diagnosis([], sigmoids), width) for width in (50, 110))
    assert "hidden here" not in wide
    note = " ".join(narrow[narrow.index("(hidden here") :].split())
    head = next(line for line in narrow.splitlines() if line.startswith("  layer"))
    for name in ("mean", "std", "linearity", "saturation", "signal", "transmission", "update_ratio"):
        heading = COLUMNS[name].heading
        assert (heading in note) != (heading in head)


def test_a_layer_with_nan_keeps_the_width(sigmoids):
    last = sigmoids[-1]
    broken = tuple(dataclasses.replace(record, nonfinite=True, mean=float("-inf")) for record in last.activations)
    for width in (60, 80, 92):
        lines = table.text(Diagnosis([], [dataclasses.replace(last, activations=broken, weighted=())]), width)
        assert max(map(len, lines.splitlines())) <= width
        assert lines.count("NaN/Inf") == 6
        assert "%" not in lines.split("order of execution:", 1)[1]


def test_a_nan_loss_is_told_from_none(sigmoids):
    seen = dataclasses.replace(sigmoids[-1], loss=float("nan"), nonfinite_loss=True)
    none = dataclasses.replace(sigmoids[-1], loss=float("nan"))
    assert "step 2, loss NaN, in" in str(Diagnosis([], [seen]))
    assert "step 2, in" in str(Diagnosis([], [none]))


@pytest.mark.parametrize("width", range(48, 101))
def test_names_of_classes_are_not_broken(width, second):
    remedy = Remedy("x", "put batch normalisation before a non-linear activation: nn.BatchNorm1d / 2d", "0")
    shown = table.text(Diagnosis([dataclasses.replace(second, remedies=(remedy,))]), width)
    assert "nn.BatchNorm1d / 2d" in shown
    assert "non-linear" in shown
