"""Self-normalising blocks: a weighted layer, SELU and alpha dropout, with the initialisation they need."""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat.torch_modules import ConvNd
from lightning_tricks.init.fans import fans
from lightning_tricks.init.schemes import lecun_normal_
from lightning_tricks.nn.dropout import AlphaDropout

__all__ = ["SELUConv1d", "SELUConv2d", "SELUConv3d", "SELULinear", "SelfNormalizingMLP"]


def _check_dropout(dropout: float) -> None:
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout, the probability of being dropped, has to be in [0, 1), not {dropout}")


def _check_size(name: str, size: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, numbers.Integral):
        raise TypeError(f"{name} has to be an int, the number of features, not {type(size).__name__} {size!r}")
    if int(size) < 1:
        raise ValueError(f"{name} has to be at least 1, not {size}")


class _LeCunStart:
    """Weights from LeCun's normal with the layer's own fan_in, biases 0 (Klambauer et al. 2017, "Initialization").

    As the layer's own ``reset_parameters`` it holds wherever weights are made again: after ``to_empty`` and in FSDP.
    """

    def reset_parameters(self) -> None:
        assert isinstance(self, (nn.Linear, ConvNd))
        if self.weight.is_meta:
            return
        lecun_normal_(self.weight, fan=fans(self))
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class LeCunLinear(_LeCunStart, nn.Linear):
    """``nn.Linear`` that starts with LeCun weights."""


class LeCunConv1d(_LeCunStart, nn.Conv1d):
    """``nn.Conv1d`` that starts with LeCun weights."""


class LeCunConv2d(_LeCunStart, nn.Conv2d):
    """``nn.Conv2d`` that starts with LeCun weights."""


class LeCunConv3d(_LeCunStart, nn.Conv3d):
    """``nn.Conv3d`` that starts with LeCun weights."""


class _SELUBlock(nn.Module):
    """weighted -> SELU -> alpha dropout. The parts are children, so that surgery and probes see each by itself."""

    runs_children_in_order = True  # for lt.init.predict

    def __init__(self, weighted: nn.Module, dropout: float) -> None:
        super().__init__()
        _check_dropout(dropout)
        self.weighted = weighted
        self.activation = nn.SELU()
        self.dropout = AlphaDropout(dropout)

    @property
    def weight(self) -> Tensor:
        """The weight of the weighted layer inside, under its usual name."""
        return self.weighted.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """The bias of the weighted layer inside, or None."""
        return self.weighted.bias  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.activation(self.weighted(x)))


class SELULinear(_SELUBlock):
    """Linear -> SELU -> AlphaDropout with LeCun weights: keeps mean 0 and variance 1 over any number of layers.

    From input of mean 0 and variance 1 (``Standardize``) the output has them too, and a stack of such layers pulls a
    deviation back (Klambauer et al. 2017, theorem 1). Gradients are not kept: they grow by 1.035 a layer, threefold
    over 32 layers (``lt.init.stability("selu").chi``).

    Args:
        in_features: Size of the last dimension of the input.
        out_features: Size of the last dimension of the output.
        dropout: p of the alpha dropout; 0 in deep stacks, where even 0.05 a layer leaves no signal.
        bias: Whether the linear layer has a bias.
        device: As for ``nn.Linear``.
        dtype: As for ``nn.Linear``.

    Raises:
        ValueError: dropout outside [0, 1), or a size under 1.
        TypeError: A size that is no int.

    >>> block = SELULinear(64, 32)
    >>> block(torch.randn(10, 64)).shape
    torch.Size([10, 32])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        dropout: float = 0.0,
        *,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_size("in_features", in_features)
        _check_size("out_features", out_features)
        super().__init__(LeCunLinear(in_features, out_features, bias, device, dtype), dropout)


class SELUConv1d(_SELUBlock):
    """``nn.Conv1d`` -> SELU -> AlphaDropout with LeCun weights, right for groups too.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            As for ``nn.Conv1d``. Zero padding lowers the variance at the borders.
        dropout: p of the alpha dropout, by element.

    Raises:
        ValueError: dropout outside [0, 1).

    >>> SELUConv1d(3, 8, 5)(torch.randn(2, 3, 20)).shape
    torch.Size([2, 8, 16])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, *args: Any, dropout: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(LeCunConv1d(in_channels, out_channels, kernel_size, *args, **kwargs), dropout)


class SELUConv2d(_SELUBlock):
    """``nn.Conv2d`` -> SELU -> AlphaDropout with LeCun weights; arguments and errors as for ``SELUConv1d``.

    >>> SELUConv2d(3, 8, 3, padding=1, groups=1)(torch.randn(2, 3, 9, 9)).shape
    torch.Size([2, 8, 9, 9])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, *args: Any, dropout: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(LeCunConv2d(in_channels, out_channels, kernel_size, *args, **kwargs), dropout)


class SELUConv3d(_SELUBlock):
    """``nn.Conv3d`` -> SELU -> AlphaDropout with LeCun weights; arguments and errors as for ``SELUConv1d``.

    >>> SELUConv3d(1, 2, 3)(torch.randn(1, 1, 5, 5, 5)).shape
    torch.Size([1, 2, 3, 3, 3])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, *args: Any, dropout: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(LeCunConv3d(in_channels, out_channels, kernel_size, *args, **kwargs), dropout)


class SelfNormalizingMLP(nn.Module):
    """A stack of ``SELULinear`` and a linear output, all with LeCun weights.

    Feed it input of mean 0 and variance 1 (``Standardize``).

    Args:
        in_features: Size of the last dimension of the input.
        hidden_features: The width of each hidden layer.
        out_features: Size of the last dimension of the output.
        dropout: p of the alpha dropout after each hidden layer; over k layers ((1-p) / (1 + 3.0909 p))^k of the
            squared correlation with the input is left, so 0 unless the net is shallow.

    Raises:
        ValueError: dropout outside [0, 1), or a size under 1.
        TypeError: A size that is no int, or one int for ``hidden_features``.

    >>> net = SelfNormalizingMLP(8, [64] * 32, 10)
    >>> y = net.hidden(torch.randn(500, 8))
    >>> bool(0.5 < y.var() < 1.5)
    True
    """

    runs_children_in_order = True  # for lt.init.predict

    def __init__(
        self, in_features: int, hidden_features: Sequence[int], out_features: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        _check_dropout(dropout)
        if not isinstance(hidden_features, Iterable) or isinstance(hidden_features, str):
            raise TypeError(
                f"hidden_features has to hold the width of each hidden layer, such as [{hidden_features}] for one, not "
                f"{type(hidden_features).__name__} {hidden_features!r}"
            )
        hidden_features = list(hidden_features)
        _check_size("in_features", in_features)
        for index, width in enumerate(hidden_features):
            _check_size(f"hidden_features[{index}]", width)
        _check_size("out_features", out_features)
        widths = [in_features, *hidden_features]
        self.hidden = nn.Sequential(*(SELULinear(n, m, dropout) for n, m in itertools.pairwise(widths)))
        self.output = LeCunLinear(widths[-1], out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.hidden(x))
