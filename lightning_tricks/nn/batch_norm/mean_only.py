"""Mean-only batch normalisation: the mean is taken away, the scale stays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from lightning_tricks.model.processes import is_distributed
from lightning_tricks.nn.batch_norm.running import RunningStatistics, accumulation_dtype, joint_moments, move

__all__ = ["MeanOnlyBatchNorm1d", "MeanOnlyBatchNorm2d", "MeanOnlyBatchNorm3d", "mean_only_batch_norm"]


def mean_only_batch_norm(input: Tensor, bias: Tensor | None = None, synchronize: bool = False) -> tuple[Tensor, Tensor]:
    r"""Subtracts the batch's mean from every channel: :math:`y = x - \mu_B + \beta`.

    Its gradient is centred as well: :math:`\partial L / \partial x = \delta - E_B[\delta]`. Source: Salimans & Kingma
    2016, "Weight Normalization", section 4, equations 11 and 12.

    Args:
        input: Shape ``[N, C]`` or ``[N, C, *]``.
        bias: The shift, shape ``[C]``, or None.
        synchronize: Take the mean over all processes.

    Returns:
        The output, and the batch's mean, shape ``[C]``.

    >>> y, mean = mean_only_batch_norm(torch.tensor([[1.0], [3.0]]), bias=torch.tensor([10.0]))
    >>> y.flatten(), mean
    (tensor([ 9., 11.]), tensor([2.]))
    """
    dtype = accumulation_dtype(input.dtype)
    mean = input.mean([axis for axis in range(input.dim()) if axis != 1], dtype=dtype)
    if synchronize and is_distributed():
        mean, _, _ = joint_moments(mean, None, input.numel() // input.shape[1])
    return _shift(input, (-mean if bias is None else bias.to(dtype) - mean)), mean


@fx.wrap
def _shift(input: Tensor, shift: Tensor) -> Tensor:
    # The sum is taken in the shift's type: a mean rounded to half precision would move the whole channel.
    return (input + shift.view((1, -1) + (1,) * (input.dim() - 2))).to(input.dtype)


class _MeanOnlyBatchNorm(RunningStatistics):
    bias: Tensor | None
    _divides = False
    _dimensions: tuple[int, ...] = ()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        accumulation_steps: int = 1,
        synchronize: bool = False,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.synchronize = synchronize
        factory = {"device": device, "dtype": dtype}
        self.register_parameter("bias", nn.Parameter(torch.empty(num_features, **factory)) if affine else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", torch.zeros(num_features, **factory) if tracked else None)
        count = torch.zeros((), dtype=torch.long, device=device)
        self.register_buffer("num_batches_tracked", count if tracked else None)
        self._configure(accumulation_steps, bias)
        self.reset_parameters()

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in self._dimensions:
            expected = " or ".join(f"{dimension}D" for dimension in self._dimensions)
            raise ValueError(f"{self} expected {expected} input (got {input.dim()}D input)")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input(input)
        if not self._uses_batch():
            assert self.running_mean is not None
            bias = 0.0 if self.bias is None else self.bias.to(self.running_mean.dtype)
            return _shift(input, bias - self.running_mean)
        output, mean = mean_only_batch_norm(input, self.bias, self.synchronize)
        if self.training and self.track_running_stats:
            with torch.no_grad():
                assert self.running_mean is not None
                move(self.running_mean, mean, self._next_weight())
        return output

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}{super().extra_repr()}"
        )


class MeanOnlyBatchNorm1d(_MeanOnlyBatchNorm):
    """Mean-only batch normalisation of tables and sequences, the companion of weight normalisation.

    The class around :func:`mean_only_batch_norm`; in eval the running mean takes the batch mean's place. There is no
    scale: that is the weight normalisation's part, ``torch.nn.utils.parametrizations.weight_norm`` on the layer before.

    Source: Salimans & Kingma 2016, section 4.

    Args:
        num_features: The number of channels C.
        eps: Without effect; there so that the class can stand where ``nn.BatchNorm1d`` stood.
        momentum, track_running_stats, device, dtype: As in ``nn.BatchNorm1d``.
        affine, bias: Both True: the layer has a learned shift.
        accumulation_steps: Micro-batches per optimiser step; see :func:`micro_batch_momentum`.
        synchronize: Take the mean over all processes.

    Shape:
        ``[N, C]`` or ``[N, C, L]``, and the same out.

    Raises:
        ValueError: ``accumulation_steps`` is below 1; in forward: a wrong number of channels or dimensions, or fewer
            than 2 values per channel in training.

    >>> layer = MeanOnlyBatchNorm1d(16)
    >>> layer(torch.randn(8, 16) + 5).mean(0).abs().max() < 1e-5
    tensor(True)
    """

    _dimensions = (2, 3)


class MeanOnlyBatchNorm2d(_MeanOnlyBatchNorm):
    """Mean-only batch normalisation of images ``[N, C, H, W]``; see :class:`MeanOnlyBatchNorm1d`.

    >>> MeanOnlyBatchNorm2d(8)(torch.randn(2, 8, 4, 4)).shape
    torch.Size([2, 8, 4, 4])
    """

    _dimensions = (4,)


class MeanOnlyBatchNorm3d(_MeanOnlyBatchNorm):
    """Mean-only batch normalisation of volumes ``[N, C, D, H, W]``; see :class:`MeanOnlyBatchNorm1d`.

    >>> MeanOnlyBatchNorm3d(8)(torch.randn(2, 8, 2, 4, 4)).shape
    torch.Size([2, 8, 2, 4, 4])
    """

    _dimensions = (5,)
