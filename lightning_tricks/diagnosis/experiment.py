"""An experiment that was made: its question, the answer, and the numbers that were measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_tricks.probes.records.record import to_json


@dataclasses.dataclass(frozen=True)
class Example:
    """A pattern of the data that an answer speaks of.

    Args:
        index: Its number in the data set, or its position in the epoch; the answer says which.
        text: What is said of it.
        part: Whose pattern it is: ``"training"`` or ``"validation"``.
        picture: A small PNG of it as a data URI; empty where it is no image.

    >>> print(Example(12, "labelled 3, its neighbours 8"))
    training 12: labelled 3, its neighbours 8
    """

    index: int
    text: str
    part: str = "training"
    picture: str = ""

    def __str__(self) -> str:
        return f"{self.part} {self.index}: {self.text}"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What was tried on a copy of a training, and what came of it.

    Args:
        name: The experiment's name, such as ``"free_outputs"``: the function of ``lightning_tricks.experiments``.
        question: What was asked, one sentence.
        answer: What came of it, one sentence; of an experiment that is not conclusive, why it could not be asked.
        numbers: What was measured, by name.
        curves: Runs of numbers, such as losses over steps, by name.
        steps: How many optimiser steps were made; 0 for forwards and backwards alone.
        seconds: How long it took.
        conclusive: Whether the question was answered.
        place: What it was found at, a layer or a function; empty where it is found at none.
        doubt: Why a training cannot be called healthy in its light, though it names nothing; empty where it can.
        examples: Patterns of the data that show it, the clearest first.
        reading: What the numbers are, and how they are to be read; empty where that is not written down.

    >>> print(Experiment("evaluation_gap", "is the loss the same in evaluation mode?", "yes", {"gap": 0.01}))
    evaluation_gap: is the loss the same in evaluation mode? yes
    >>> print(Experiment("evaluation_gap", "is it?", "the loss draws random numbers", conclusive=False))
    evaluation_gap: not judged: the loss draws random numbers
    """

    name: str
    question: str
    answer: str
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    conclusive: bool = True
    place: str = ""
    doubt: str = ""
    examples: Sequence[Example] = ()
    reading: str = ""

    @property
    def on(self) -> str:
        """Whose numbers these are, where it trained: not those of the training that is judged."""
        return f" on copies of the network as it was given, {self.steps} steps in all" if self.steps else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        examples = [vars(each) for each in self.examples]
        whole = {**vars(self), "numbers": dict(self.numbers), "curves": dict(self.curves), "examples": examples}
        fields: dict[str, Any] = to_json(whole)
        return fields

    def __str__(self) -> str:
        return f"{self.name}: {f'{self.question} ' if self.conclusive else 'not judged: '}{self.answer}"
