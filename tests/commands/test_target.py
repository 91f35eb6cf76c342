"""What is named on the command line and is not there, or is no such thing, is told in a line."""

import pytest

from lightning_tricks.commands import main
from tests.commands.shop import checkup


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("broken",), "shop_of_tests:broken() raised RuntimeError: no weights here"),
        (("nothing",), "shop_of_tests has no 'nothing'"),
        (("leaves",), "shop_of_tests:leaves() raised SystemExit: 0"),
        (("number",), "shop_of_tests:number is int: give a factory"),
        (("batch",), "gives tuple, which is no model"),
        (("plain", "--val-data", "shop_of_tests:broken"), "no weights here"),
        (("plain", "--loss", "cross_entropi"), "did you mean 'cross_entropy'"),
        (("plain", "--loss", "shop_of_tests:number"), "no loss function"),
        (("plain", "--ignore", "dead_unit"), "did you mean 'dead_units'"),
        (("plain", "--batches", "0"), "num_batches must be at least 1"),
        (("plain", "--experiments", "guess"), "guess"),
    ],
)
def test_errors_are_one_line_and_status_2(arguments, message, capsys):
    assert checkup(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("lightning-tricks checkup: error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("data", "message"), [("three", "a batch must be (x, y), got 3 entries"), ("narrow", "RuntimeError: mat1 and mat2")]
)
def test_data_of_another_form(data, message, capsys):
    assert checkup("plain", data=data) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("model", "layer"), [("plain", "0"), ("Own", "net.0")])
def test_data_that_do_not_fit_are_told_with_the_layer(model, layer, capsys):
    assert checkup(model, data="narrow") == 2
    assert capsys.readouterr().err.rstrip().endswith(f"(in {layer}: Linear, given (8, 5))")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("shop_of_tests", "given as module:name"),
        ("shop_of_others:plain", "no module 'shop_of_others' in"),
        ("other/shop.py:plain", "there is no file other/shop.py"),
        ("shop_that_fails:plain", "importing shop_that_fails raised ZeroDivisionError"),
        ("shop_that_lacks:plain", "importing shop_that_lacks raised ModuleNotFoundError"),
    ],
)
def test_a_wrong_path(target, message, tmp_path, capsys):
    (tmp_path / "shop_that_fails.py").write_text("1 / 0")
    (tmp_path / "shop_that_lacks.py").write_text("import nothing_of_that_name")
    assert main(["checkup", target, "--data", "shop_of_tests:batch"]) == 2
    assert message in capsys.readouterr().err


def test_known_names_are_the_users_own(capsys):
    """Neither what a module imports nor its constants; of a class what it defines, not what it inherits."""
    assert checkup("plane") == 2
    told = capsys.readouterr().err.partition("known are ")[2].strip().split(", ")
    assert {"plain", "Own", "Faint", "batch", "ready"} <= set(told)
    assert not {"torch", "nn", "L", "number"} & set(told)
    assert checkup("Own.nothing") == 2
    known = capsys.readouterr().err.partition("known are ")[2].strip()
    assert known == "forward, training_step, configure_optimizers"


def test_of_a_module_that_defines_nothing_nothing_is_known(tmp_path, capsys):
    (tmp_path / "shop_without.py").write_text("import torch")
    assert main(["checkup", "shop_without:make", "--data", "shop_of_tests:batch"]) == 2
    assert "shop_without has no 'make': nothing is defined there" in capsys.readouterr().err


def test_a_model_without_a_loss_is_told_how_to_give_one(capsys):
    assert main(["checkup", "shop_of_tests:plain", "--data", "shop_of_tests:batch"]) == 2
    assert "--loss cross_entropy" in capsys.readouterr().err
