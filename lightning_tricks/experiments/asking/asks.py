"""How an experiment is asked: on a copy, without a trace, and with a reason where there is no answer."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec

import torch
from torch import Tensor, nn

from lightning_tricks._compat import lightning as compat
from lightning_tricks._compat.compiled import original_of
from lightning_tricks.diagnosis.experiment import Example, Experiment
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.preflight.replay import without_output
from lightning_tricks.experiments.training import Training
from lightning_tricks.experiments.training.deadline import TimeIsUpError
from lightning_tricks.model.isolated import keep_random_numbers

LossFunction = Callable[[Any, Any], Tensor]
P = ParamSpec("P")
READINGS: dict[str, str] = {}  # of every experiment by its name, from the docstring of its function


@dataclasses.dataclass(frozen=True)
class Answer:
    """What an experiment found: a sentence, numbers, curves, how many optimiser steps were made, where, a doubt, and
    patterns that show it."""

    text: str
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    steps: int = 0
    place: str = ""
    doubt: str = ""
    examples: Sequence[Example] = ()


def asks(question: str, name: str = "") -> Callable[[Callable[P, Answer]], Callable[P, Experiment]]:
    """Make an experiment of a function that gives an answer; its name is the experiment's.

    Random numbers of Python, NumPy and torch go on as if it had not been asked, and nothing is printed. Whatever goes
    wrong gives an experiment that is not conclusive, with the reason; wrong arguments are an error as elsewhere.
    """

    def make(function: Callable[P, Answer]) -> Callable[P, Experiment]:
        called = name or function.__name__
        READINGS[called] = reading_of(function) or READINGS.get(called, "")

        @functools.wraps(function)
        def ask(*args: P.args, **kwargs: P.kwargs) -> Experiment:
            begun = time.perf_counter()
            try:
                with without_a_trace():
                    found = function(*args, **kwargs)
            except WrongArgumentError as error:
                raise TypeError(str(error)) from None
            except (NotAskedError, TimeIsUpError) as reason:
                return Experiment(called, question, str(reason), seconds=time.perf_counter() - begun, conclusive=False)
            except Exception as error:  # a forward or a loss may do anything
                text = f"{type(error).__name__}: {error}".partition("\n")[0]
                return Experiment(called, question, text, seconds=time.perf_counter() - begun, conclusive=False)
            taken = time.perf_counter() - begun
            parts = found.text, found.numbers, found.curves, found.steps
            made = Experiment(called, question, *parts, taken, place=found.place, doubt=found.doubt)
            return dataclasses.replace(made, examples=tuple(found.examples), reading=READINGS[called])

        return ask

    return make


def reading_of(function: Callable[..., Any]) -> str:
    """What a docstring says under "Returns", its names between `...`: what the numbers are, and how they are read."""
    _, _, told = (inspect.getdoc(function) or "").partition("Returns:\n")
    told = re.split(r"\n(?=\S|\n?>>>)|\n\s*>>>", told)[0]
    paragraphs = (" ".join(each.split()) for each in told.split("\n\n"))
    return "\n".join(re.sub(r"(?::\w+:)?`+~?([^`]*)`+", r"`\1`", each) for each in paragraphs if each)


class WrongArgumentError(Exception):
    """An argument that no experiment can be asked with: an error, not an answer."""


def copied(model: nn.Module | Training, loss_fn: LossFunction | None = None, optimizer: Any = None) -> Training:
    """A copy of the training of a model, on which an experiment is free to do anything.

    Raises:
        NotAskedError: It cannot be copied.
    """
    if isinstance(model, Training):
        return model.copy()
    if not isinstance(model, nn.Module):
        raise WrongArgumentError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if loss_fn is None and not compat.is_lightning_module(original_of(model)):
        raise WrongArgumentError(f"{type(model).__name__} is no LightningModule: give a loss_fn(output, target)")
    return Training.of(model, loss_fn, optimizer)


@contextlib.contextmanager
def same_draws() -> Iterator[None]:
    """A block that begins with the random numbers that the next one begins with: two runs draw the same."""
    with keep_random_numbers():
        yield


@contextlib.contextmanager
def without_a_trace() -> Iterator[None]:
    """A block with gradients that prints nothing and draws what it likes: random numbers go on as before it."""
    with without_output(), keep_random_numbers(), torch.inference_mode(False), torch.enable_grad():
        yield
