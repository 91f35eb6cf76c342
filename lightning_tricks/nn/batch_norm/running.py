"""What all batch normalisations here share: running statistics in float32, their momentum, and the checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from lightning_tricks._compat.torch_modules import BatchNorm as TorchBatchNorm
from lightning_tricks._compat.torch_tensors import transforms_are_active
from lightning_tricks.model.processes import stack_over_processes

__all__ = [
    "BatchNorm",
    "RunningStatistics",
    "accumulation_dtype",
    "batch_moments",
    "joint_moments",
    "micro_batch_momentum",
    "move",
]

_HALF = (torch.float16, torch.bfloat16)


def micro_batch_momentum(momentum: float, accumulation_steps: int) -> float:
    r"""The momentum of one micro-batch with which ``accumulation_steps`` of them move as far as one step should.

    Batch normalisation updates its running statistics in every forward pass. With gradients accumulated over k
    micro-batches that is k times per optimiser step, an effective momentum of :math:`1 - (1 - m)^k`: .57 for m = .1 and
    k = 8. This is the inverse, :math:`1 - (1 - m)^{1/k}`.

    Args:
        momentum: The momentum m asked for per optimiser step, in [0, 1].
        accumulation_steps: The number k of forward passes per optimiser step, at least 1.

    Raises:
        ValueError: One of the two is out of range.

    >>> m = micro_batch_momentum(0.1, 8)
    >>> round(1 - (1 - m) ** 8, 12)
    0.1
    """
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"momentum must lie in [0, 1] or be None (cumulative average), got {momentum}")
    if accumulation_steps < 1:
        raise ValueError(f"accumulation_steps must be at least 1, got {accumulation_steps}")
    return float(1.0 - (1.0 - momentum) ** (1.0 / accumulation_steps))


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which statistics of a tensor of this type are computed: float32 for half precision."""
    return torch.float32 if dtype in _HALF else dtype


class RunningStatistics(nn.Module):
    """Mixin of the batch normalisations: it moves the running statistics and keeps them in float32.

    In half precision a running mean stalls: a bfloat16 buffer at 100 never reaches a true mean of 101, because the
    steps of momentum 0.1 are smaller than its resolution. So ``.half()`` and ``.bfloat16()`` convert the affine
    parameters, as for any layer, and leave the running statistics in float32.
    """

    num_features: int
    eps: float
    momentum: float | None
    track_running_stats: bool
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    accumulation_steps: int
    _divides = True  # by a standard deviation, to which eps is added
    _check_input_dim: Callable[[Tensor], None]

    def _configure(self, accumulation_steps: int, bias: bool = True) -> None:
        """The last step of a constructor: checks, and the parts of the signature that not every torch has."""
        if self.num_features < 1:
            raise ValueError(f"{type(self).__name__}: num_features must be at least 1, got {self.num_features}")
        if not (0.0 < self.eps < 1.0 or (self.eps == 0 and not self._divides)):
            name, hint = type(self).__name__, self._hint()
            raise ValueError(f"{name}: eps, the second argument, must lie between 0 and 1, got {self.eps}{hint}")
        if self.momentum is not None:
            micro_batch_momentum(self.momentum, accumulation_steps)
        elif accumulation_steps < 1:
            raise ValueError(f"accumulation_steps must be at least 1, got {accumulation_steps}")
        self.accumulation_steps = accumulation_steps
        if not bias:
            self.register_parameter("bias", None)
        self.keep_statistics_in_float32()

    def keep_statistics_in_float32(self) -> None:
        """Makes running statistics in half precision float32."""
        self._apply(lambda tensor: tensor)

    def _hint(self) -> str:
        """What else an eps that makes no sense may have been meant to be."""
        return ""

    def reset_parameters(self) -> None:
        """Scale 1, shift 0, running mean 0 and running variance 1."""
        self.reset_running_stats()
        for name, value in (("weight", 1.0), ("bias", 0.0)):
            parameter = getattr(self, name, None)
            if parameter is not None:
                nn.init.constant_(parameter, value)

    def reset_running_stats(self) -> None:
        """Running mean 0, running variance 1, no batches seen."""
        for name, value in (("running_mean", 0), ("running_var", 1), ("num_batches_tracked", 0)):
            buffer = self._buffers.get(name)
            if buffer is not None:
                buffer.fill_(value)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        before = {name: self._buffers.get(name) for name in ("running_mean", "running_var")}
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers.get(name)
            if old is not None and new is not None and new.dtype in _HALF:
                kept = new if old.is_meta else old  # a meta tensor has no values to keep
                self._buffers[name] = kept.to(device=new.device, dtype=torch.float32)
        return self

    def _uses_batch(self) -> bool:
        """Whether the batch's own statistics normalise: in training, and where there are no others."""
        return self.training or self.running_mean is None

    def _check_input(self, input: Tensor) -> None:
        if isinstance(input, fx.Proxy):
            if self._uses_batch():
                raise fx.proxy.TraceError(
                    f"{type(self).__name__} in training mode cannot be traced symbolically: a graph of torch.fx would "
                    "not hold how its running statistics move; trace in eval mode, or use torch.export"
                )
            return
        self._check_input_dim(input)
        if input.shape[1] != self.num_features:
            raise ValueError(
                f"{self} got {input.shape[1]} channels in dimension 1 of an input of shape {tuple(input.shape)}; "
                f"expected {self.num_features}"
            )
        if self._uses_batch() and input.numel() <= self.num_features:
            raise ValueError(
                f"{self} got an input of shape {tuple(input.shape)}, fewer than 2 values per channel, and has no "
                "statistics to compute from it; use larger batches (drop_last=True in the DataLoader if it is the "
                "last one) or call .eval()"
            )

    def _evaluated(self, input: Tensor) -> Tensor:
        """Normalised by the running statistics, in their precision."""
        assert self.running_mean is not None
        dtype = self.running_mean.dtype
        affine = (getattr(self, name, None) for name in ("weight", "bias"))
        weight, bias = (None if values is None else values.to(dtype) for values in affine)
        return F.batch_norm(input, self.running_mean, self.running_var, weight, bias, False, 0.0, self.eps)

    def _next_weight(self) -> float | Tensor:
        """Counts this batch and gives the share of it in the running statistics."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        if self.momentum is None:
            return 1.0 / self.num_batches_tracked.to(torch.float32)
        return micro_batch_momentum(self.momentum, self.accumulation_steps)

    def extra_repr(self) -> str:
        steps = f", accumulation_steps={self.accumulation_steps}" if self.accumulation_steps != 1 else ""
        return super().extra_repr() + steps


BatchNorm = (
    TorchBatchNorm | RunningStatistics
)  # every kind, for isinstance: torch's own, theirs derived from it, and ours


def batch_moments(input: Tensor) -> tuple[Tensor, Tensor]:
    """A batch's mean and biased variance per channel, in the precision of statistics: plain tensor arithmetic.

    The kernels of batch norm are faster and write into buffers, which a transform (``vmap``, ``jvp``) does not allow.
    """
    values = input.to(accumulation_dtype(input.dtype))
    variance, mean = torch.var_mean(values, [axis for axis in range(input.dim()) if axis != 1], correction=0)
    return mean, variance


def move(running: Tensor, value: Tensor, weight: float | Tensor) -> None:
    """running += weight (value - running), in place."""
    if isinstance(weight, Tensor):
        weight = weight.to(running.dtype)
    value = value.detach().to(running.dtype)
    if transforms_are_active():  # vmap has no rule of its own for lerp_
        running.add_(weight * (value - running))
    else:
        running.lerp_(value, weight)


def joint_moments(mean: Tensor, squares: Tensor | None, count: int) -> tuple[Tensor, Tensor | None, Tensor]:
    r"""Mean and variance over all processes, differentiable, from those of each one (Chan et al. 1979).

    .. math:: \mu = \sum_r n_r \mu_r / N, \qquad
        N \sigma^2 = \sum_r \left( S_r + n_r (\mu_r - \mu)^2 \right)

    Args:
        mean: This process's mean :math:`\mu_r`, shape ``[C]``.
        squares: This process's sum of squared deviations :math:`S_r` from its own mean, shape ``[C]``, or None.
        count: This process's number of values per channel :math:`n_r`.

    Returns:
        Mean, biased variance (None without ``squares``) and the count N as a tensor.
    """
    parts = [mean] if squares is None else [mean, squares]
    gathered = stack_over_processes(torch.cat([*parts, mean.new_tensor([float(count)])]))
    channels = mean.numel()
    counts = gathered[:, -1:].detach()
    total = counts.sum()
    means = gathered[:, :channels]
    joint = (counts * means).sum(0) / total
    if squares is None:
        return joint, None, total
    deviations = gathered[:, channels:-1] + counts * (means - joint).square()
    return joint, deviations.sum(0) / total, total
