"""What stands on the page, read as a string; how it looks is in test_chromium.py."""

import dataclasses
import math
import re
from html import unescape

import pytest

from lightning_tricks.diagnosis import Finding, Remedy
from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.diagnosis.history.learning import guess_of
from lightning_tricks.probes import Snapshot
from lightning_tricks.report import CurveComparison, Diagnosis
from lightning_tricks.report.html import html
from lightning_tricks.report.html.measures import PICTURES, write
from lightning_tricks.report.layers import layer_rows
from lightning_tricks.report.words import evidence
from lightning_tricks.treatment import Proven, Treatment
from tests.report.html.conftest import long_diagnosis


def text(page):
    return " ".join(re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", page, flags=re.S).split())


@pytest.mark.parametrize("name", ["healthy", "one_fault", "two_faults"])
def test_state_faults_layers_and_remedies_are_told(name, request):
    diagnosis = request.getfixturevalue(name)
    shown = text(html(diagnosis)).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    state, _, said = diagnosis.verdict.partition(": ")
    assert f"{state} {said[:1].upper()}{said[1:]}" in shown
    assert str(diagnosis.coverage) in shown
    for finding in diagnosis.findings:
        for part in (finding.explanation, *map(str, finding.decided_by), *(trait.value for trait in finding.traits)):
            assert part in shown
        for remedy in finding.remedies:
            assert re.sub(r"\s|[,.;:]", "", str(remedy)) in re.sub(r"\s|[,.;:]", "", shown)
        for item in evidence(finding.evidence):
            assert item in shown
    assert bool(diagnosis.findings) == (name != "healthy")


def test_numbers_of_picture_table_and_text_agree(one_fault):
    """The number of a cell is what the text table writes of the same layer, and what the finding tells."""
    page, last = html(one_fault), one_fault.history[-1]
    rows = layer_rows(last)
    for shown in PICTURES:
        figure = re.search(f'id="m-{shown.measure.replace("_", "-")}".*?</figure>', page, re.S)
        if figure is None:
            assert not any(shown.measure in row.values for row in rows)
            continue
        cells = [line.split("<td>")[-1] for line in re.findall(r"<tr><th scope=row>(.*?)(?=<tr>|</table>)", figure[0])]
        for row, cell in zip(rows, cells, strict=True):
            assert cell == (write(shown.measure, row.values[shown.measure]) if shown.measure in row.values else cell)
    (finding,) = one_fault.findings
    first = re.search('id="m-signal".*?<tr><th scope=row>(.*?)<tr>', page, re.S)[1].split("<td>")[-1]
    assert float(first) == pytest.approx(finding.evidence["shrinks to"], rel=0.1)


def test_what_happened_when(one_fault):
    shown = text(html(one_fault))
    assert "step 0 finding 1, critical: vanishing gradient at layer 0" in shown
    assert "the learning rate is 0.0500" in shown
    assert "An answer that does not look at the input (a guess) has 1.3" in shown
    assert "the lowest loss in validation: 1.00" in shown


def test_shares_of_the_way(rectifiers, one_fault):
    page = html(one_fault)
    guess = guess_of(one_fault.history)
    first, *_, last = re.findall(r"<tr><th scope=\"row\">\d+</th><td>([^<]*)</td><td>([^<]*)%</td>", page)
    for loss, share in (first, last):
        assert float(share) == pytest.approx(100 * (guess - float(loss)) / guess, abs=1)
    assert '">0%</span>' in page  # on the right of the picture
    losses = [dataclasses.replace(s, loss=loss, losses=()) for s, loss in zip(rectifiers, (3, 2, 1, 1, 1), strict=True)]
    assert "of the way" not in text(html(Diagnosis([], losses))).partition("The words")[0]


def test_experiments_proofs_and_trials_are_shown(two_faults):
    curves = {"before": [(0, 1.0), (9, 1.0)], "after": [(0, 1.0), (9, 0.2)]}
    shown = text(html(two_faults, [CurveComparison("lower rate", curves, "it learns", guess=1.4)]))
    assert shown.count("does it learn faster on standardised inputs? Answer: yes") == 1
    assert "does it learn faster on standardised inputs? yes ( the proof of finding 1 )" in shown
    assert "loss before 1.50; loss after 0.200" in shown
    assert "Before and after lower rate it learns" in shown
    assert "Before and after" not in text(html(two_faults))
    open_end = dataclasses.replace(two_faults.experiments[0], conclusive=False, answer="no loss is known")
    assert "standardized: no loss is known" in text(html(dataclasses.replace(two_faults, experiments=[open_end])))


def test_what_a_copy_reached_is_said_to_be_of_a_copy(two_faults):
    """Where the numbers stand: of a trial, and of a proof; and what the numbers are."""
    reading = "Numbers: `not_held`, of all.\nHow to read it: 0 is none."
    first, second = (
        dataclasses.replace(two_faults.experiments[0], name=name, steps=steps, reading=reading)
        for name, steps in (("changes", 80), ("reach", 0))
    )
    shown = html(dataclasses.replace(two_faults, experiments=[first, second]))
    told = "on copies of the network as it was given, 80 steps in all, 0.3 s: not the training whose loss this page"
    assert f"Measured {told}" in shown
    assert "Asked of network and data as they were given, without a training" in shown
    assert "<p>Numbers: <code>not held</code>, of all.</p><p>How to read it: 0 is none.</p>" in shown
    proven = dataclasses.replace(two_faults.findings[0], proof=first)
    assert told in html(dataclasses.replace(two_faults, findings=[proven], experiments=[]))


def test_shares_of_trainings_that_are_compared_are_percent(two_faults):
    numbers = {"unchanged": 0.4, "relu": 0.8, "gain of relu": 0.3, "lr": 0.01, "adam": math.nan}
    made = Experiment("changes", "?", "!", numbers, {"unchanged": [0.0, 0.4], "relu": [0.0, 0.8]})
    shown = text(html(dataclasses.replace(two_faults, experiments=[made])))
    assert "Measured: unchanged 40%; relu 80%; gain of relu 30%; lr 0.0100." in shown


def test_the_table_of_the_loss_has_the_steps_that_are_spoken_of(one_fault):
    history = [dataclasses.replace(one_fault.history[-1], step=step) for step in range(100)]
    found = dataclasses.replace(one_fault, findings=[Finding("dead_units", "1", "warning", 37)], history=history)
    table = html(found).partition("The numbers: loss")[2].partition("</table>")[0]
    assert {"0", "37", "99"} <= set(re.findall(r'<th scope="row">(\d+)<', table))
    assert "loss in validation" in table
    unknown = [dataclasses.replace(s, validation_loss=math.nan) for s in history]
    table = html(dataclasses.replace(found, history=unknown)).partition("The numbers: loss")[2].partition("</table>")[0]
    assert "loss in validation" not in table


def test_what_was_not_seen_is_said(rectifiers):
    missed = [dataclasses.replace(rectifiers[0], not_seen={"gru": "a kernel"}), *rectifiers[1:]]
    shown = text(html(Diagnosis([], missed)))
    assert "Nothing is said about these, neither good nor bad: gru : a kernel" in shown
    assert "Everything that ran was seen." in text(html(Diagnosis([], rectifiers)))


def test_it_loads_nothing(two_faults):
    page = html(two_faults)
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"|url\(|@import|https?:', page)
    assert "default-src 'none'" in unescape(page)


def test_html_in_names_is_text(hostile):
    page = html(hostile)
    assert "<img" not in page
    assert page.count("<script") == 1


@pytest.mark.parametrize("history", [[], [Snapshot()], [Snapshot(5, not_seen={"": ""})]])
@pytest.mark.parametrize("numbers", [{"a": None}, {"a": float("nan")}, {"": {}}, {"a": []}])
def test_odd_findings_and_histories_are_shown(history, numbers):
    odd = Finding("non_finite", "a" * 150, "critical", 0, numbers, "", (Remedy("", ""),))
    assert "became NaN" in html(Diagnosis([odd], history))
    assert "Unknown" in html(Diagnosis([], history))


def test_a_large_network_fits_two_megabytes():
    """Of numbers no two of which are alike: no stroke joins two cells."""
    page = html(long_diagnosis(300, 256))
    assert len(page.encode()) < 2_000_000
    assert "of 256 probed steps" in page


def test_layers_without_a_finding_stand_together_in_a_long_network():
    page = html(long_diagnosis(300, 2))
    strip = re.search('<ol class="strip">.*?</ol>', page, re.S)[0]
    assert strip.count("<li") == 3
    assert "77 rows" in strip
    assert "222 rows" in strip
    assert 'href="#finding-1"' in strip


def test_a_short_training_is_healthy_so_far_and_no_more(rectifiers):
    assert "Healthy so far No fault found in 9 steps, too early to tell" in text(html(Diagnosis([], rectifiers)))


def test_a_loss_that_became_nan_is_told(rectifiers):
    broken = dataclasses.replace(rectifiers[-1], loss=float("nan"), nonfinite_loss=True)
    assert "From step 8 on it is NaN or infinite." in text(html(Diagnosis([], [*rectifiers[:-1], broken])))


class Treated:
    """As a treatment is."""

    summary, trials = "From 10% to 60% of the way.", ()

    @property
    def curves(self):
        return {"unchanged": [(0, 0.0), (8, 0.1)], "lower rate": [(0, 0.0), (8, 0.6)], "nothing": []}

    def __str__(self):
        return f"{self.summary} lr=0.1 <b>"


def test_a_treatment_is_shown_by_its_curves(two_faults):
    page = html(two_faults, [Treated()])
    assert "From 10% to 60% of the way. Drawn: the share of the way over the steps." in text(page)
    assert "lr=0.1 &lt;b&gt;" in page
    trials = page.partition('id="trials"')[2].partition("</section>")[0]
    assert re.findall('<i class="line (l.)"></i>([a-z ]+)', trials) == [("l1", "unchanged"), ("l0", "lower rate")]
    assert "Treatment" in text(
        html(two_faults, [type("Empty", (), {"curves": {}, "summary": "Nothing.", "trials": ()})()])
    )


def test_the_treatment_of_a_diagnosis_is_on_its_page(two_faults):
    """What was changed stands in the open, once, with its gain; what was tried besides can be unfolded."""
    change = Proven("initialize", "start every layer anew", "net.0", 0.5)
    numbers = {"round": 1, "share": 0.6, "unchanged": 0.1, "gain": 0.5, "proven": 1, "after": 200}
    treatment = Treatment(
        [change],
        [change],
        {"lr": 0.01},
        trials=[Experiment("initialize", "?", "yes", numbers)],
        curves={"unchanged": [(0, 0.0), (10, 0.1)], "initialize": [(0, 0.0), (10, 0.6)]},
        before=0.1,
        after=0.6,
    )
    diagnosis = dataclasses.replace(two_faults, treatment=treatment)
    for page in (html(diagnosis), html(diagnosis, [treatment])):
        trials = page.partition('id="trials"')[2].partition("</section>")[0]
        assert trials.count("<h3>Treatment</h3>") == 1
        shown = trials.partition("<details>")[0]
        assert "<li>changed: start every layer anew at net.0  (gain +50%)</li>" in shown
        assert "<li>use: lr=0.01</li>" in shown
        assert "share of the way  unchanged" in trials


def test_of_a_treatment_that_is_drawn_which_was_made(two_faults):
    """Beside the unchanged training, before what was tried in vain, however early that was."""
    gains = {"standardize_input": 0.0, "lower_rate": 0.01, "lsuv": 0.0, "relu": 0.0, "insert_batch_norm": 0.4}
    tried = [
        Experiment(name, "?", "!", {"round": 1, "share": g, "unchanged": 0, "gain": g, "proven": g > 0.1, "after": 9})
        for name, g in gains.items()
    ]
    curves = {name: [(0, 0.0), (9, gain)] for name, gain in {"unchanged": 0.0, **gains}.items()}
    page = html(dataclasses.replace(two_faults, treatment=Treatment(trials=tried, curves=curves)))
    drawn = re.findall('<i class="line l."></i>([^<]+)', page.partition('id="trials"')[2].partition("</section>")[0])
    assert drawn[:3] == ["unchanged", "insert batch norm", "lower rate"]


def test_trainings_that_are_compared_are_drawn_in_shares(two_faults):
    trials = Experiment("changes", "?", "!", {"unchanged": 0.1}, {"unchanged": [0.0, 0.1], "lower": [0.0, 0.7]})
    losses = Experiment("memorise", "?", "!", {"own": 0.9}, {"own": [2.0, 0.1]})
    page = html(dataclasses.replace(two_faults, experiments=[trials, losses]))
    shown = page.partition('id="tried"')[2].partition("</section>")[0]
    titles = re.findall('class="titles" aria-hidden="true"><span>([^<]*)<', shown)
    assert titles == ["share of the way", "loss, logarithmic"]
    assert "The numbers: share of the way" in shown


def test_a_word_is_used_as_the_glossary_has_it(healthy):
    """What a picture says to who does not see it included."""
    page = html(healthy).partition("<main>")[2].partition('id="words"')[0]
    assert not re.search(r"\blooks\b", page)
