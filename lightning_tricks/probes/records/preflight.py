"""What a few further forwards of the first probed step showed: whose output depends on what."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from lightning_tricks.probes.records.record import to_json

__all__ = ["Place", "PreflightRecord"]

Kind = Literal["attention", "recurrence", "softmax", "cumulation", "reduction", "view", "convolution", "other"]


@dataclasses.dataclass(frozen=True)
class Place:
    """The first call whose output depends on what it should not depend on, while its input does not.

    Args:
        layer: The path of the module that calls it, with the function's name unless the module is the operation.
        function: What is called, such as ``"softmax"`` or ``"lstm"``.
        kind: What it is.
        module: The class of the module that is the operation, such as ``"nn.LSTM"``; empty for a function call.
        inside: The class and path of a layer of torch around that one which hands the argument on, such as
            ``"nn.TransformerEncoderLayer"``; empty where there is none.
        input_shape: Of its first tensor.
        output_shape: Of its output.
        input_axis: The dimension of the patterns in the input; None where it is not known.
        output_axis: That in the output.
        dim: The dimension that it runs over, counted from the front; None where it has none.
        batch_first: What the module says of itself; None where it says nothing.
        bidirectional: Whether it also reads from the end.
    """

    layer: str
    function: str
    kind: Kind = "other"
    module: str = ""
    inside: str = ""
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    input_axis: int | None = None
    output_axis: int | None = None
    dim: int | None = None
    batch_first: bool | None = None
    bidirectional: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Place:
        """The place that was stored; what is unknown here is left out."""
        known = {f.name for f in dataclasses.fields(cls)}
        restored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        return cls(**restored)


@dataclasses.dataclass(frozen=True)
class PreflightRecord:
    """The outermost call of a step, run again without gradient in evaluation mode, with other patterns beside.

    A change is the root mean square difference of an output over its standard deviation over patterns; NaN where it
    was not asked for.

    Args:
        module: The path of the module that was called.
        patterns: The number of patterns in the batch.
        again: Change of the output when nothing is exchanged.
        mixing: Change of the output of a pattern when all the others are exchanged.
        own: Change of the output of a pattern when it is exchanged itself.
        place: Where patterns mix; None where nothing mixes, or the call is not known.
        later: Change of the outputs that a loss reads, when all tokens after them are exchanged.
        later_place: The first call that sees later tokens.
        next_tokens: Share of the targets that are the element one later in the input, of those where that can be told.
        draw_correlation: Correlation over patterns of two draws of the output in training mode; NaN where nothing is
            drawn.
        unshifted: The same of the element at their own place, where nearly all are.
        alike: Whether what the call was given is the same for all patterns; then nothing was asked.
        same_target: Whether the batch brings one target for all patterns, and nothing else is wanted of the outputs.
        collated: Whether the loader put the batch together of single patterns, of which any may meet any.
    """

    module: str = ""
    patterns: int = 0
    again: float = math.nan
    mixing: float = math.nan
    own: float = math.nan
    place: Place | None = None
    later: float = math.nan
    later_place: Place | None = None
    next_tokens: float = math.nan
    draw_correlation: float = math.nan
    unshifted: float = math.nan
    alike: bool = False
    same_target: bool = False
    collated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        fields: dict[str, Any] = to_json(dataclasses.asdict(self))
        return fields

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PreflightRecord:
        """The record that ``to_dict`` wrote, in this version or another: what is unknown here is left out."""
        restored: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            value = values.get(field.name)
            if field.type == "float":
                restored[field.name] = math.nan if value is None else value
            elif field.type == "Place | None":
                restored[field.name] = None if value is None else Place.from_dict(value)
            elif value is not None:
                restored[field.name] = value
        return cls(**restored)
