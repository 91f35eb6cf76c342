import csv
import dataclasses
import math

import pytest

from lightning_tricks.probes import LossRecord, NormalizationRecord, ParameterRecord, Snapshot
from lightning_tricks.report import write_csv
from lightning_tricks.report.history import COLUMNS


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_number_comes_back_from_the_file(sigmoids, tmp_path):
    found = read(write_csv(sigmoids, tmp_path / "new" / "history.csv"))
    values = {(int(r["step"]), r["kind"], r["layer"], r["measure"]): float(r["value"]) for r in found}
    assert len(values) == len(found)  # one row a number
    expected = {}
    for snapshot in sigmoids:
        for measure in ("loss", "learning_rate", "validation_loss"):
            if not math.isnan(getattr(snapshot, measure)):
                expected[snapshot.step, "model", "", measure] = getattr(snapshot, measure)
        for kind, records in (
            ("activation", snapshot.activations),
            ("weighted", snapshot.weighted),
            ("parameter", snapshot.parameters),
            ("normalization", snapshot.normalizations),
            ("loss", snapshot.losses),
        ):
            for record in records:
                for measure in (f.name for f in dataclasses.fields(record) if f.type == "float"):
                    if not math.isnan(getattr(record, measure)):
                        expected[snapshot.step, kind, record.name, measure] = getattr(record, measure)
    assert values == expected
    assert not any(math.isnan(value) for value in values.values())


def test_functions_and_operations_are_named(rectifiers, tmp_path):
    found = read(write_csv(rectifiers, tmp_path / "history.csv"))
    named = {(r["kind"], r["layer"], r["function_or_operation"]) for r in found}
    assert {("activation", "1", "relu"), ("weighted", "0", "linear"), ("parameter", "0.weight", "")} <= named


def test_a_raised_flag_has_a_row(spoilt, sigmoids, tmp_path):
    found = read(write_csv(spoilt, tmp_path / "history.csv"))
    flags = {(r["step"], r["layer"]) for r in found if r["measure"] == "nonfinite" and r["kind"] == "weighted"}
    assert ("0", "0") not in flags
    assert {("1", "0"), ("2", "6")} <= flags
    assert "nonfinite" not in {r["measure"] for r in read(write_csv(sigmoids, tmp_path / "other.csv"))}


def test_flags_that_are_mostly_true_have_a_row_where_they_are_not(tmp_path):
    records = (ParameterRecord("a.weight", trainable=False), ParameterRecord("b.weight"))
    ends = {"normalizations": (NormalizationRecord("bn", training=False),), "losses": (LossRecord("mse", "mse_loss"),)}
    found = read(write_csv([Snapshot(validation_loss=0.5, parameters=records, **ends)], tmp_path / "history.csv"))
    rows = {(r["kind"], r["layer"], r["function_or_operation"], r["measure"]): float(r["value"]) for r in found}
    assert rows == {
        ("model", "", "", "validation_loss"): 0.5,
        ("parameter", "a.weight", "", "trainable"): 0.0,
        ("normalization", "bn", "batch_norm", "dropout"): 0.0,
        ("normalization", "bn", "batch_norm", "training"): 0.0,
    }


@pytest.mark.parametrize("history", [[], [Snapshot()]])
def test_without_numbers_only_the_header_is_written(history, tmp_path):
    path = write_csv(history, str(tmp_path / "history.csv"))
    assert path.read_text(encoding="utf-8").strip() == ",".join(COLUMNS)
