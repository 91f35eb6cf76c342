"""The modules that batch-norm surgery leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, fx, nn

__all__ = ["ChannelPad", "FoldedBatchNorm", "NormalizedLayer"]

_FOLDED = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


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


@fx.wrap
def check_dims(input: Tensor, dims: int, into: str) -> Tensor:
    """The input, if it has the dimensions that batch norm was folded for; one operation in a traced graph."""
    if input.dim() != dims:
        raise ValueError(
            f"a batch norm was folded into '{into}' for {dims}-dimensional inputs and got one of shape "
            f"{list(input.shape)}; fold with batch= to show what the network gets"
        )
    return input


class FoldedBatchNorm(nn.Identity):
    """Stands where a batch norm stood that is now part of another layer.

    Its sizes and settings are still there; asked for its weights or statistics it raises an error that says why.

    Args:
        into: The name of that layer.
        dims: The dimensions of the inputs for which the folding is exact.
        batch_norm: What was folded, for ``num_features``, ``eps`` and ``momentum``.
    """

    def __init__(self, into: str, dims: int, batch_norm: nn.Module | None = None) -> None:
        super().__init__()
        self.into = into
        self.dims = dims
        for name in ("num_features", "eps", "momentum"):
            if hasattr(batch_norm, name):
                setattr(self, name, getattr(batch_norm, name))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            if name not in _FOLDED:
                raise
            raise AttributeError(
                f"this batch norm was folded into {self.__dict__.get('into')!r} and has no {name} any more; change "
                "what reads it, or leave this batch norm"
            ) from error

    def forward(self, input: Tensor) -> Tensor:
        return check_dims(input, self.dims, self.into)

    def extra_repr(self) -> str:
        return f"into={self.into!r}, dims={self.dims}"


class ChannelPad(FoldedBatchNorm):
    """Pads each channel by a value of its own: the zeros behind a batch norm, as they look from before it.

    Args:
        into: The name of the layer that the batch norm became part of.
        padding: As ``torch.nn.functional.pad`` takes it.
        values: One value per channel, shape ``[C]``.
        batch_norm: As of ``FoldedBatchNorm``.

    >>> import torch
    >>> ChannelPad("conv", [1, 0], torch.tensor([7.0]))(torch.ones(1, 1, 2))
    tensor([[[7., 1., 1.]]])
    """

    if TYPE_CHECKING:  # an annotation that is there at run time is one that torch.jit has to understand
        values: Tensor

    def __init__(self, into: str, padding: list[int], values: Tensor, batch_norm: nn.Module | None = None) -> None:
        super().__init__(into, len(padding) // 2 + 2, batch_norm)
        self.padding = list(padding)
        self.register_buffer("values", values.reshape((-1,) + (1,) * (len(padding) // 2)))

    def forward(self, input: Tensor) -> Tensor:
        input = check_dims(input, self.dims, self.into)
        return F.pad(input - self.values, self.padding) + self.values

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, padding={self.padding}"
