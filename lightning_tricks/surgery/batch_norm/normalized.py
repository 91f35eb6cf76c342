"""The modules that batch-norm surgery leaves behind."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ChannelPad", "FoldedBatchNorm", "NormalizedLayer"]


class NormalizedLayer(nn.Module):
    """A weighted layer and the batch norm of its output, in the layer's place.

    The outputs of an ``nn.Linear`` are normalised over everything but the last dimension, whatever their shape. What
    the model asks of the layer (``model.fc.in_features``) is still there.

    Args:
        layer: The weighted layer.
        batch_norm: Its batch norm, one-dimensional for an ``nn.Linear``.

    >>> layer = NormalizedLayer(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))
    >>> import torch
    >>> layer(torch.randn(5, 7, 3)).shape, layer.out_features
    (torch.Size([5, 7, 4]), 4)
    """

    def __init__(self, layer: nn.Module, batch_norm: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.batch_norm = batch_norm

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "layer":
                raise
            return getattr(self.layer, name)

    def forward(self, input: Tensor) -> Tensor:
        output = self.layer(input)
        if isinstance(self.layer, nn.Linear):
            return self.batch_norm(output.flatten(0, -2)).view_as(output)
        return self.batch_norm(output)


class FoldedBatchNorm(nn.Identity):
    """Stands where a batch norm stood that is now part of another layer.

    Args:
        into: The name of that layer.
        dims: The dimensions of the inputs for which the folding is exact.
    """

    def __init__(self, into: str, dims: int) -> None:
        super().__init__()
        self.into = into
        self.dims = dims

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() != self.dims:
            raise ValueError(
                f"a batch norm was folded into {self.into!r} for {self.dims}-dimensional inputs and got one of shape "
                f"{tuple(input.shape)}; fold with batch= to show what the network gets"
            )
        return input

    def extra_repr(self) -> str:
        return f"into={self.into!r}, dims={self.dims}"


class ChannelPad(FoldedBatchNorm):
    """Pads each channel by a value of its own: the zeros behind a batch norm, as they look from before it.

    Args:
        into: The name of the layer that the batch norm became part of.
        padding: As ``torch.nn.functional.pad`` takes it.
        values: One value per channel, shape ``[C]``.

    >>> import torch
    >>> ChannelPad("conv", [1, 0], torch.tensor([7.0]))(torch.ones(1, 1, 2))
    tensor([[[7., 1., 1.]]])
    """

    def __init__(self, into: str, padding: list[int], values: Tensor) -> None:
        super().__init__(into, len(padding) // 2 + 2)
        self.padding = list(padding)
        self.register_buffer("values", values.reshape((-1,) + (1,) * (len(padding) // 2)))

    def forward(self, input: Tensor) -> Tensor:
        input = super().forward(input)
        values = self.get_buffer("values")
        return F.pad(input - values, self.padding) + values

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, padding={self.padding}"
