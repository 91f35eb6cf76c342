import dataclasses
import re

import pytest

from lightning_tricks.diagnosis import RULES, Finding, Remedy
from lightning_tricks.report import Diagnosis
from lightning_tricks.report.html import findings
from lightning_tricks.treatment.treatment import Proven, Treatment
from tests.report.conftest import REMEDIES


@pytest.mark.parametrize(
    ("advice", "code"),
    [
        ("lt.nn.SELULinear, or lt.surgery.self_normalize(model, old='sigmoid')", 2),
        ("start: lt.init.initialize(model), or lt.init.lsuv_(model, x) first", 2),
        ("train with Trainer(gradient_clip_val=1.0)", 1),
        ("shuffle=True", 1),
        ("lower the learning rate, from 0.1 to about 0.01 (a tenth), e.g. at once. Then wait", 0),
        ("nn.Softmax(dim=1) behind f(g(x), y)", 2),
    ],
)
def test_calls_are_set_as_code_whole(advice, code):
    (shown,) = findings.section(Diagnosis([Finding("evil", None, "warning", 0, remedies=(Remedy("x", advice),))]))
    found = re.findall("<code>(.*?)</code>", shown)
    assert len(found) == code
    assert all(each.count("(") == each.count(")") for each in found)
    assert advice in re.sub("<[^>]*>", "", shown)


def test_every_remedy_of_the_rules_is_whole():
    for rule in RULES:
        for remedy in rule.remedies:
            assert re.sub("<[^>]*>", "", findings._code(str(remedy))) == str(remedy).replace("&", "&amp;").replace(
                "<", "&lt;"
            ).replace(">", "&gt;")


def test_consequences_stand_below_their_cause(cause):
    next_step, shown = findings.section(Diagnosis([cause]))
    assert "Mend the first one and train again" in next_step
    inner = shown.partition("What follows from it")[2]
    assert inner.index("vanishing gradient at layer 3") < inner.index("linear units at layer 5")
    assert "linearity 1.000" in inner


def test_what_is_proven_by_trial_comes_first(cause):
    made = Treatment([Proven(REMEDIES[1].action, "leave out the softmax", None, 0.57, False)])
    next_step = findings.section(Diagnosis([cause], treatment=made))[0]
    assert "Begin with what is proven by trial" in next_step
    assert "on copies of the network as it was given" in next_step
    assert "leave out the softmax (a gain of 57% of the way)" in next_step
    shown = findings.section(Diagnosis([cause], treatment=made))[1]
    marked = [line for line in re.findall("<li>.*?</li>", shown) if "proven by a trial" in line]
    assert ["SELULinear" in line for line in marked] == [True]
    assert "Mend the first one" in findings.section(Diagnosis([cause], treatment=Treatment()))[0]


def test_what_follows_has_a_remedy_too_for_where_it_stays():
    follows = Finding("saturation", "3", "warning", 0, remedies=(Remedy("x", "halve the weights of layer 2"),))
    cause = Finding("output_mismatch", "6", "critical", 0, remedies=(Remedy("x", "y"),), consequences=(follows,))
    _, shown = findings.section(Diagnosis([cause]))
    assert "What to do if it stays: halve the weights of layer 2" in shown


def test_with_notes_alone_nothing_has_to_be_mended(healthy):
    noted = Diagnosis([Finding("batch_norm_mismatch", "0", "info", 0)], healthy.history)
    assert "Nothing has to be mended" in findings.section(noted)[0]


def test_without_a_finding_it_says_what_to_do_next(healthy, rectifiers):
    long = [*healthy.history[:-1], dataclasses.replace(healthy.history[-1], step=500)]
    assert "No rule found anything to mend." in findings.section(Diagnosis([], long))[0]
    assert "train on, and look again" in findings.section(Diagnosis([], rectifiers))[0]
    blind = [dataclasses.replace(rectifiers[0], parameters=())]
    assert "not enough to call the training healthy" in findings.section(Diagnosis([], blind))[0]
    assert "Nothing was looked at yet." in findings.section(Diagnosis())[0]


def test_the_words_of_what_follows_are_explained_too():
    follows = Finding("collapsed_output", "3", "warning", 0, {"share of dead units": 0.5}, "One class is answered.")
    whole = Diagnosis([Finding("output_mismatch", "6", "critical", 0, consequences=(follows,))])
    words = findings.section(whole)[1].partition("The words used here")[2]
    assert {"class", "dead units", "since step", "severity"} <= set(re.findall("<dt>(.*?)</dt>", words))
