"""Batch renormalisation: training normalises almost as inference does."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks._compat.torch_tensors import transforms_are_active
from lightning_tricks.model.processes import is_distributed
from lightning_tricks.nn.batch_norm.running import (
    RunningStatistics,
    accumulation_dtype,
    batch_moments,
    joint_moments,
    move,
)

__all__ = ["BatchRenorm1d", "BatchRenorm2d", "BatchRenorm3d", "batch_renorm"]


def batch_renorm(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    r_max: float | Tensor = 3.0,
    d_max: float | Tensor = 5.0,
    eps: float = 1e-5,
    synchronize: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Normalises a batch by its own statistics, then corrects it towards what the running ones would have given.

    .. math::
        y = \gamma \left( \frac{x - \mu_B}{\sigma_B} r + d \right) + \beta, \quad
        r = \mathrm{clip}_{[1/r_{max}, r_{max}]}\!\left(\frac{\sigma_B}{\sigma}\right), \quad
        d = \mathrm{clip}_{[-d_{max}, d_{max}]}\!\left(\frac{\mu_B - \mu}{\sigma}\right)

    with :math:`\sigma = \sqrt{Var + \epsilon}`, and r and d constants for the gradient. Source: Ioffe 2017, "Batch
    Renormalization", Algorithm 1. The corrections are folded into scale and shift, so that one fused kernel does
    forward and backward.

    Args:
        input: Shape ``[N, C]`` or ``[N, C, *]``.
        running_mean, running_var: The running statistics :math:`\mu` and :math:`\sigma^2`, shape ``[C]``.
        weight, bias: Scale and shift, shape ``[C]``, or None.
        r_max, d_max: The limits, at least 1 and 0; ``inf`` leaves the correction free, (1, 0) is batch normalisation.
        eps: Added to both variances.
        synchronize: Take the batch's statistics over all processes.

    Returns:
        The output, and the batch's mean and biased standard deviation :math:`\sigma_B`, shape ``[C]``.

    >>> x = torch.tensor([[0.0], [2.0]])
    >>> y, _, _ = batch_renorm(x, torch.zeros(1), torch.ones(1), r_max=math.inf, d_max=math.inf)
    >>> torch.allclose(y, x, atol=1e-4)    # free limits: normalised by the running statistics
    True
    """
    dtype = accumulation_dtype(input.dtype)
    shape = (1, -1) + (1,) * (input.dim() - 2)
    centred = None
    if synchronize and is_distributed():
        values = input.to(dtype)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        local = values.mean(axes)
        squares = (values - local.view(shape)).square().sum(axes)
        mean, variance, _ = joint_moments(local, squares, input.numel() // input.shape[1])
        assert variance is not None
        centred = (values - mean.view(shape)) * (variance + eps).rsqrt().view(shape)
        mean, variance = mean.detach(), variance.detach()
    else:
        mean, variance = _statistics(input.detach(), dtype, eps)
    with torch.no_grad():
        std = (variance + eps).sqrt_()
        scale_of_running = (running_var.to(dtype) + eps).rsqrt_()
        r = _clip(std * scale_of_running, 1.0 / r_max, r_max)
        d = _clip((mean - running_mean.to(dtype)).mul_(scale_of_running), -d_max, d_max)
    scale, shift = r, d
    if weight is not None:
        weight = weight.to(dtype)
        scale = weight * r
        shift = weight * d if bias is None else torch.addcmul(bias.to(dtype), weight, d)
    elif bias is not None:
        shift = d + bias.to(dtype)
    if centred is not None:
        output = torch.addcmul(shift.view(shape), centred, scale.view(shape)).to(input.dtype)
    else:
        output = F.batch_norm(input, None, None, scale, shift, True, 0.0, eps)
    return output, mean, std


def _statistics(input: Tensor, dtype: torch.dtype, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel as the batch-norm kernel finds them, left in its buffers by momentum 1.

    On a CPU that is several times faster than ``var_mean``.
    """
    if transforms_are_active():
        with torch.no_grad():
            return batch_moments(input)
    mean = torch.zeros(input.shape[1], dtype=dtype, device=input.device)
    variance = torch.ones_like(mean)
    count = input.numel() // input.shape[1]
    with torch.no_grad():
        if input.is_cpu and not torch.compiler.is_compiling():
            torch.batch_norm_update_stats(input, mean, variance, 1.0)  # the same bits, and no output to write
        else:
            F.batch_norm(input, mean, variance, None, None, True, 1.0, eps)
        return mean, variance.mul_((count - 1) / count)


def _clip(values: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    if isinstance(low, Tensor) and isinstance(high, Tensor):
        return torch.minimum(torch.maximum(values, low.to(values.dtype)), high.to(values.dtype))
    return values.clamp(float(low), float(high))


class _BatchRenorm(RunningStatistics):
    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.01,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        r_max: float = 3.0,
        d_max: float = 5.0,
        warmup_steps: int = 5_000,
        r_max_step: int = 40_000,
        d_max_step: int = 25_000,
        accumulation_steps: int = 1,
        synchronize: bool = False,
    ) -> None:
        name = type(self).__name__
        if not track_running_stats:
            raise ValueError(
                f"{name} corrects towards its running statistics and cannot be without them; "
                "use nn.BatchNorm for track_running_stats=False"
            )
        if not r_max >= 1.0:
            raise ValueError(f"{name}: r_max must be at least 1, got {r_max}")
        if not d_max >= 0.0:
            raise ValueError(f"{name}: d_max must not be negative, got {d_max}")
        for key, step, limit in (("r_max", r_max_step, r_max), ("d_max", d_max_step, d_max)):
            if warmup_steps < 0 or step < warmup_steps:
                raise ValueError(f"{name}: 0 <= warmup_steps <= {key}_step is needed, got {warmup_steps} and {step}")
            if step > warmup_steps and math.isinf(limit):
                raise ValueError(
                    f"{name}: an infinite {key} cannot be approached step by step; "
                    f"give {key}_step=warmup_steps ({warmup_steps})"
                )
        super().__init__(num_features, eps, momentum, affine, True, device, dtype)
        self.r_max, self.d_max = r_max, d_max
        self.warmup_steps, self.r_max_step, self.d_max_step = warmup_steps, r_max_step, d_max_step
        self.synchronize = synchronize
        self._configure(accumulation_steps, bias)

    def limits(self) -> tuple[float | Tensor, float | Tensor]:
        """The limits r_max and d_max of the next batch: tensors on the device, from ``num_batches_tracked``."""
        if self.r_max_step == self.d_max_step == 0:
            return self.r_max, self.d_max
        assert self.num_batches_tracked is not None
        step = self.num_batches_tracked.to(torch.float32) / self.accumulation_steps

        def at(first: float, last: float, until: int) -> Tensor:
            if until == self.warmup_steps:
                reached = step >= until
                return torch.where(reached, step.new_full((), last), step.new_full((), first))
            return first + (last - first) * ((step - self.warmup_steps) / (until - self.warmup_steps)).clamp(0.0, 1.0)

        return at(1.0, self.r_max, self.r_max_step), at(0.0, self.d_max, self.d_max_step)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        if not self.training:
            return self._evaluated(input)
        output, mean, std = batch_renorm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            *self.limits(),
            self.eps,
            synchronize=self.synchronize,
        )
        if self.track_running_stats:
            with torch.no_grad():
                weight_of_batch = self._next_weight()
                move(self.running_mean, mean, weight_of_batch)
                # The paper's moving average is one of the standard deviation, not of the variance.
                running_std = (self.running_var + self.eps).sqrt_()
                move(running_std, std, weight_of_batch)
                self.running_var.copy_((running_std * running_std).sub_(self.eps).clamp(min=0.0))
        return output

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, r_max={self.r_max}, d_max={self.d_max}"


class BatchRenorm1d(_BatchRenorm, nn.BatchNorm1d):
    """Batch renormalisation of tables and sequences: for small batches and batches that are not drawn at random.

    The class around :func:`batch_renorm`. The limits begin at (1, 0), which is batch normalisation, stay there for
    ``warmup_steps`` and rise linearly to ``r_max`` and ``d_max``; the clock is ``num_batches_tracked``, so it is saved
    with the model. In eval, and in its ``state_dict``, the layer is ``nn.BatchNorm1d``.

    ``nn.SyncBatchNorm.convert_sync_batchnorm``, which is Lightning's ``Trainer(sync_batchnorm=True)``, would make it an
    ``nn.SyncBatchNorm`` and nothing else; ``synchronize=True`` is the way.

    Source: Ioffe 2017, Algorithm 1 and section 4 (the default limits and steps; momentum .01 is its alpha).

    Args:
        num_features: The number of channels C.
        eps, momentum, affine, device, dtype, bias: As in ``nn.BatchNorm1d``.
        track_running_stats: Has to be True; there for the signature.
        r_max, d_max: The last limits; ``inf`` for none.
        warmup_steps: Optimiser steps of plain batch normalisation at the beginning.
        r_max_step, d_max_step: Optimiser steps after which ``r_max`` and ``d_max`` are reached. All three 0: at once.
        accumulation_steps: Micro-batches per optimiser step; see :func:`micro_batch_momentum`.
        synchronize: Take the batch's statistics over all processes.

    Shape:
        ``[N, C]`` or ``[N, C, L]``, and the same out.

    Raises:
        ValueError: Limits or steps out of range, ``track_running_stats=False``; in forward: a wrong number of channels,
            or fewer than 2 values per channel in training.

    >>> layer = BatchRenorm1d(16, warmup_steps=100, r_max_step=300, d_max_step=200)
    >>> _ = layer.num_batches_tracked.fill_(150)
    >>> [float(limit) for limit in layer.limits()]
    [1.5, 2.5]
    """


class BatchRenorm2d(_BatchRenorm, nn.BatchNorm2d):
    """Batch renormalisation of images ``[N, C, H, W]``; see :class:`BatchRenorm1d`.

    >>> BatchRenorm2d(8)(torch.randn(2, 8, 4, 4)).shape
    torch.Size([2, 8, 4, 4])
    """


class BatchRenorm3d(_BatchRenorm, nn.BatchNorm3d):
    """Batch renormalisation of volumes ``[N, C, D, H, W]``; see :class:`BatchRenorm1d`.

    >>> BatchRenorm3d(8)(torch.randn(2, 8, 2, 4, 4)).shape
    torch.Size([2, 8, 2, 4, 4])
    """
