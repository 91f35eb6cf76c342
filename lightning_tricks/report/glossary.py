"""The vocabulary: every word that a table, a page or a help text uses of a diagnosis, explained once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from lightning_tricks.diagnosis.history.error_signal import RELATIVE
from lightning_tricks.probes import ActivationRecord, ParameterRecord
from lightning_tricks.probes.records.record import Measure
from lightning_tricks.report.words import words


class Word(NamedTuple):
    """A word: what it means and, of a number, how it is to be read."""

    term: str
    meaning: str
    reading: str = ""

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.meaning, self.reading)))


_CALLED = {"mean": "mean a", "std": "std a", "dead_share": "dead units"}  # measures not called by their own names
_NO_NUMBERS = (
    Word("activation", "a nonlinear function g, its call, its record"),
    Word("consequence", "a finding folded under its cause"),
    Word("const", "in place of a linearity: the layer gives the same for every pattern"),
    Word("class", "one of the answers that a target chooses from, such as one of ten digits"),
    Word("coverage", "what of a training was seen: layers, gradients, updates, and what the rules needed to judge"),
    Word("criterion", "a number, its threshold and which side is bad"),
    Word("error signal", "dLoss/da of a pre-activation a"),
    Word("experiment", "one question asked on a copy, and its answer in numbers"),
    Word("finding", "one problem at one layer with its numbers"),
    Word("flat side", "where the slope of an activation is under 5 % of its largest: hardly any signal comes back"),
    Word("floor", "the least loss that any outputs have"),
    Word("gate", "an activation whose output multiplies something"),
    Word("guess", "the loss of an answer that does not look at the input", "of one batch less than of all targets"),
    Word("layer", "a weighted operation or an activation; in one row where one takes the output of the other"),
    Word("linear filter", "a layer whose activation bends nothing: it could be left out without a loss of depth"),
    Word("look", "one probed step, and all that was measured in it"),
    Word("pattern", "one entry of batch x space x time"),
    Word("pre-activation", "what enters an activation"),
    Word("probed step", "an optimiser step that is looked at"),
    Word("proof", "an experiment that shows that a finding is true, or what its remedy brings"),
    Word("reachable", "the least loss that outputs of this form can have, as behind a softmax or within a bound"),
    Word("rectifier", "an activation that is zero on one side, such as ReLU"),
    Word("severity", "info: worth knowing; warning: it costs; critical: it stops the training from working"),
    Word("share", "a part of a whole, as of all patterns or units; that of the way is a word of its own"),
    Word(
        "share of the way",
        "from the loss of a guess, 0 %, to the floor, 100 %; to 0 where no floor is known",
        "below 0 it is worse than a guess",
    ),
    Word(
        "since step",
        "the probed step from which on it shows at every one",
        "what came and went before counts for nothing, so a table may show it earlier",
    ),
    Word(
        "trial",
        "a short training of copies of the network as it was given, with one change and without",
        "its numbers are none of the training that is judged",
    ),
    Word("trait", "a fact about a finding that attribution reads"),
    Word("unit", "one output of a layer: a neuron or a channel"),
    Word("weighted operation", "linear, convolution, product with a parameter, embedding, recurrent kernel"),
)
SIGNAL = Word("signal", *RELATIVE)


def of_measure(name: str, measure: Measure) -> Word:
    """The word for a measure: its line stands beside its formula, in the record that it is of."""
    term = _CALLED.get(name, words(name))
    return Word(term, measure.meaning.removeprefix(f"{term}: "), measure.reading)


def _all() -> dict[str, Word]:
    kinds = (ActivationRecord, ParameterRecord)
    measures = {name: measure for kind in kinds for name, measure in kind.MEASURES.items() if measure.meaning}
    found = [*_NO_NUMBERS, SIGNAL, *(of_measure(name, measure) for name, measure in measures.items())]
    return {word.term: word for word in sorted(found, key=lambda word: word.term)}


WORDS = _all()


def explain(term: str) -> str:
    """What a word means that a diagnosis uses, and how its numbers are to be read.

    Raises:
        ValueError: It is none of the vocabulary.

    >>> explain("gate")
    'gate: an activation whose output multiplies something'
    """
    if term not in WORDS:
        raise ValueError(f"{term!r} is no word of the vocabulary; these are: {', '.join(WORDS)}")
    return f"{term}: {WORDS[term]}"


def used_in(text: str) -> list[Word]:
    """The words of the vocabulary that a text uses, in the order of the alphabet.

    >>> [word.term for word in used_in("Linearity 0.99 over the patterns of two units")]
    ['linearity', 'pattern', 'unit']
    """
    found = {match.lower() for match in _ANY.findall(text)}
    return [word for term, word in WORDS.items() if {term, f"{term}s", f"{term}es", term.removesuffix("s")} & found]


def markdown(words_of: Iterable[Word] = ()) -> str:
    """The vocabulary as a Markdown table."""
    rows = (f"| {word.term} | {word.meaning} | {word.reading} |" for word in words_of or WORDS.values())
    return "\n".join(["| word | what it means | how to read it |", "|---|---|---|", *rows])


_ANY = re.compile(r"\b(?:" + "|".join(sorted(map(re.escape, WORDS), key=len, reverse=True)) + r")(?:e?s)?\b", re.I)
