"""What a validation gave the network to read and to predict, beside what training had given it until then."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from lightning_tricks.probes.records.record import to_json


@dataclasses.dataclass(frozen=True)
class ChannelMoments:
    """Mean and standard deviation of each of some channels, as a layer receives them.

    Args:
        patterns: Number of patterns looked at, per channel.
        mean, std: One number a channel.
    """

    patterns: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def center(self) -> float:
        """Mean over all channels."""
        return sum(self.mean) / len(self.mean) if self.mean else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation over all channels and patterns together."""
        squares = [s * s + (m - self.center) ** 2 for m, s in zip(self.mean, self.std, strict=True)]
        return math.sqrt(sum(squares) / len(squares)) if squares else math.nan


@dataclasses.dataclass(frozen=True)
class ValidationRecord:
    """The first validation after three looks at the training: its first loader, read whole.

    Args:
        layer: The name of the weighted record whose input is compared: the first that reads data; None where none is.
        channels: Which of its input channels; of many, at most 64, spread evenly.
        looks: Number of looks at the training before.
        training: Their moments of that input.
        validation: Those of the validation.
        class_counts: How often each class was wanted; empty where no loss was given the batch's own class numbers.
        whole: Whether the validation ran over all of its data.
        resampled: Whether training draws classes otherwise than evenly: by a sampler, or by weights of the loss.
    """

    layer: str | None = None
    channels: tuple[int, ...] = ()
    looks: int = 0
    training: ChannelMoments = ChannelMoments()
    validation: ChannelMoments = ChannelMoments()
    class_counts: tuple[int, ...] = ()
    whole: bool = True
    resampled: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        fields: dict[str, Any] = to_json(dataclasses.asdict(self))
        return fields

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ValidationRecord:
        """The record that ``to_dict`` wrote, in this version or another: what is unknown here is left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        restored: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key in known
        }
        for side in ("training", "validation"):
            moments = values.get(side, {})
            numbers = {
                key: tuple(math.nan if v is None else v for v in moments.get(key, ())) for key in ("mean", "std")
            }
            restored[side] = ChannelMoments(moments.get("patterns", 0), **numbers)
        return cls(**restored)
