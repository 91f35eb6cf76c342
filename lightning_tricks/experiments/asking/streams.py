"""Streams of random numbers that a data set, or a transform in it, draws from for itself."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

_DEEP = 4  # attributes of attributes in which they are looked for
_ENTRIES = 64  # of a list


@contextmanager
def own_streams_kept(*things: Any) -> Iterator[None]:
    """A block after which the streams that objects keep go on as if nothing had been drawn in it."""
    seen = set[int]()
    streams = [stream for thing in things for stream in _streams(thing, _DEEP, seen)]
    before = [_state(stream) for stream in streams]
    try:
        yield
    finally:
        for stream, state in zip(streams, before, strict=True):
            _set_state(stream, state)


def _streams(thing: Any, deep: int, seen: set[int]) -> Iterator[Any]:
    if id(thing) in seen or deep < 0 or isinstance(thing, (Tensor, np.ndarray, str, bytes, int, float, type)):
        return
    seen.add(id(thing))
    if isinstance(thing, (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)):
        yield thing
        return
    if isinstance(thing, (list, tuple)):
        parts: Iterable[Any] = thing[:_ENTRIES]
    else:
        parts = list(getattr(thing, "__dict__", {}).values())
    for part in parts:
        yield from _streams(part, deep - 1, seen)


def _state(stream: Any) -> Any:
    if isinstance(stream, np.random.Generator):
        return copy.deepcopy(stream.bit_generator.state)
    return stream.getstate() if isinstance(stream, random.Random) else stream.get_state()


def _set_state(stream: Any, state: Any) -> None:
    if isinstance(stream, np.random.Generator):
        stream.bit_generator.state = state
    elif isinstance(stream, random.Random):
        stream.setstate(state)
    else:
        stream.set_state(state)
