"""One word, one meaning, wherever it stands."""

import re
from pathlib import Path

import pytest

from lightning_tricks.diagnosis.rules import exploding_gradient, poor_initialization, vanishing_gradient
from lightning_tricks.report import Diagnosis, explain, table
from lightning_tricks.report.glossary import WORDS, markdown, used_in
from lightning_tricks.report.html import html
from lightning_tricks.report.html.measures import PICTURES
from lightning_tricks.report.layers import COLUMNS

ROOT = Path(__file__).parents[2]
VOCABULARY = (
    "linearity transmission mean energy|update coherence|mean drift|pattern|gate|share of the way|guess|floor|look"
)


@pytest.mark.parametrize("term", VOCABULARY.replace(" transmission ", "|transmission|").split("|"))
def test_the_vocabulary_is_explained(term):
    assert explain(term).startswith(f"{term}: ")
    assert len(WORDS[term].meaning) > 10


def test_a_word_that_is_none_is_told():
    with pytest.raises(ValueError, match="'gait' is no word of the vocabulary; these are: activation, "):
        explain("gait")


def test_the_readme_has_the_same_words():
    assert markdown() in (ROOT / "README.md").read_text()


def test_the_words_of_the_architecture_are_the_same():
    told = (ROOT / "lightning_tricks" / "ARCHITECTURE.md").read_text().partition("## Words")[2].replace("\n", " ")
    entries = dict(re.findall(r"\*\*([^*]+)\*\* ([^·]+?)(?= ·|$)", told))
    both = WORDS.keys() & entries.keys()
    assert len(both) > 8
    assert {term: WORDS[term].meaning for term in both} == {term: entries[term].strip() for term in both}


def test_the_legend_of_the_table_is_made_of_them(rectifiers):
    shown = " ".join(table.text(Diagnosis([], rectifiers), 120).split())
    for column in COLUMNS.values():
        if f" {column.heading} " in shown:
            assert f"{column.word.meaning}; {column.word.reading}" in shown or not column.word.reading
    assert "0.1 to 10" not in shown


def test_the_page_explains_its_words(rectifiers):
    page = html(Diagnosis([], rectifiers))
    for word in WORDS.values():
        assert f"<dt>{word.term}</dt>" in page
    for picture in PICTURES:
        assert picture.term in WORDS


def test_numbers_to_read_by_are_those_of_the_rules():
    def numbers(text):
        return {float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)}

    limits = poor_initialization.LIMITS
    assert {limits.faint, limits.loud} <= numbers(WORDS["std a"].reading)
    assert {vanishing_gradient.LIMITS.vanished, exploding_gradient.LIMITS.exploded} <= numbers(WORDS["signal"].reading)


def test_words_are_found_in_a_text():
    assert [word.term for word in used_in("dead units, a gate and its patterns; the share of the way")] == [
        "dead units",
        "gate",
        "pattern",
        "share of the way",
    ]
    assert used_in("navigate the communities") == []
