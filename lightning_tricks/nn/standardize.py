"""Standardize: input normalisation whose statistics are fitted from data and travel with the model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils.data import Dataset

from lightning_tricks.stats.moments import MomentSums

__all__ = ["Standardize"]

_CHUNK = 1 << 22  # elements converted to float64 at a time


@fx.wrap
def shape_of_statistics(x: Tensor, num_features: int) -> list[int]:
    """(1, C, 1, ...) as x needs it; one operation in a traced graph.

    Raises:
        ValueError: Dimension 1 of x has another size than ``num_features``.
    """
    if x.dim() < 2 or x.shape[1] != num_features:
        alone = x.dim() == 1 and x.shape[0] == num_features
        cure = "; a single pattern needs a dimension for the batch: x[None]" if alone else ""
        raise ValueError(
            f"Standardize was fitted to {num_features} features in dimension 1, the input has shape {list(x.shape)}"
            + cure
        )
    return [1, num_features] + [1] * (x.dim() - 2)


class Standardize(nn.Module):
    r"""Brings every feature (of images: every channel) to mean 0 and standard deviation 1.

    .. math:: y = (x - \mu) / \sigma

    Input of mean 0 keeps the updates of a neuron's weights from all having one sign, and unit variance puts SELU at
    its fixed point (LeCun et al. 1998, section 4.3). The statistics are buffers: they are saved in the state_dict,
    move with the model, and are part of an exported graph, so that no prediction is ever made on raw input.

    Args:
        num_features: The size of dimension 1 of the input, (N, C) or (N, C, ...).

    Attributes:
        mean: (C,), 0 until fitted.
        scale: (C,), the population standard deviation; 1 until fitted and for constant features.

    Raises:
        ValueError: ``num_features`` is not positive; in the forward: the input's dimension 1 has another size.

    >>> x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    >>> standardize = Standardize.fit(x)
    >>> standardize(x)
    tensor([[-1.,  0.],
            [ 1.,  0.]])
    >>> standardize.inverse(standardize(x))
    tensor([[1., 5.],
            [3., 5.]])
    """

    if TYPE_CHECKING:  # an annotation that is there at run time is one that torch.jit has to understand
        mean: Tensor
        scale: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features has to be positive, not {num_features}")
        self.num_features = num_features
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    @classmethod
    def fit(cls, data: Tensor | np.ndarray | Iterable[Any]) -> Standardize:
        """Fits mean and standard deviation in one pass over the data.

        Sums are kept in float64 around each feature's first value and merged by Chan's update, so that neither a large
        offset nor the division into batches changes the result, and a constant feature is recognised as such.

        Args:
            data: A tensor or NumPy array (N, C, ...), or an iterable of batches: tensors or arrays, or tuples, lists
                or dicts whose first element is one. Integers (images in uint8) are fine.

        Raises:
            ValueError: No data, fewer than 2 dimensions, a changing number of features, or numbers that are not
                finite; the message names the batch and the feature.
            TypeError: Neither of these (a dataset goes into a DataLoader), or a batch that is not a tensor and does
                not begin with one.
        """
        if isinstance(data, Dataset):
            raise TypeError(
                f"data is a dataset ({type(data).__name__}), which gives single examples: wrap it in a DataLoader, "
                "Standardize.fit(DataLoader(dataset, batch_size=256))"
            )
        if not isinstance(data, Iterable):
            raise TypeError(
                f"data must be a tensor, a NumPy array or an iterable of batches such as a DataLoader, got "
                f"{type(data).__name__}"
            )
        fit = _Fit()
        for index, batch in enumerate([data] if isinstance(data, (Tensor, np.ndarray)) else data):
            x = _first(batch, index)
            if x.ndim < 2:
                raise ValueError(f"batch {index} has shape {tuple(x.shape)}; Standardize needs (N, C) or (N, C, ...)")
            rows = max(1, _CHUNK // max(1, x[:1].numel()))
            for chunk in x.split(rows):
                fit.update(chunk, index)
        if fit.shifted.count == 0:
            raise ValueError("Standardize.fit got no data; an iterator that was used up before gives none")
        module = cls(fit.mean.numel()).to(fit.mean.device)
        module.mean.copy_(fit.mean)
        scale = fit.shifted.variance.sqrt()
        module.scale.copy_(torch.where(scale == 0, 1.0, scale))
        return module

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) raw to (N, C, ...) standardised, in the dtype of the statistics or a wider one."""
        shape = shape_of_statistics(x, self.num_features)
        return (x - self.mean.view(shape)) / self.scale.view(shape)

    def inverse(self, y: Tensor) -> Tensor:
        """(N, C, ...) standardised back to raw."""
        shape = shape_of_statistics(y, self.num_features)
        return y * self.scale.view(shape) + self.mean.view(shape)

    def extra_repr(self) -> str:
        return f"num_features={self.num_features}"


def standardize_before(module: nn.Module, mean: Tensor, scale: Tensor) -> None:
    """Have a module standardise what it is given first, in place; no parameter gets another name.

    The statistics are buffers of the module, ``input_mean`` and ``input_scale``.

    Args:
        module: Any module whose first argument is a tensor.
        mean, scale: In the shape in which they are taken away and divided by.
    """
    module.register_buffer("input_mean", mean)
    module.register_buffer("input_scale", scale)
    module.register_forward_pre_hook(standardized, prepend=True)


def standardized(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The forward pre-hook of ``standardize_before``."""
    mean, scale = module.get_buffer("input_mean"), module.get_buffer("input_scale")
    return ((args[0] - mean) / scale, *args[1:])


class _Fit:
    """Moments per feature around each one's first value, in float64; batches of any size merge exactly."""

    def __init__(self) -> None:
        self.origin = torch.empty(0)
        self.shifted = MomentSums(0, self.origin, self.origin)

    @property
    def mean(self) -> Tensor:
        mean: Tensor = self.origin + self.shifted.mean
        return mean

    def update(self, x: Tensor, index: int) -> None:
        x = (x.detach().cpu() if x.device.type == "mps" else x.detach()).double()
        x = x.transpose(0, 1).reshape(x.shape[1], -1)
        if x.shape[1] == 0:
            return
        if self.shifted.count == 0:
            self.origin = x[:, 0].clone()
        if x.shape[0] != self.origin.shape[0]:
            raise ValueError(f"batch {index} has {x.shape[0]} features, the ones before {self.origin.shape[0]}")
        new = MomentSums.of(x - self.origin.to(x.device)[:, None], 1)
        if not bool(new.mean.isfinite().all()):
            feature = int((~new.mean.isfinite()).nonzero()[0])
            raise ValueError(f"batch {index}: feature {feature} has values that are not finite; remove or replace them")
        self.shifted = self.shifted.merge(MomentSums(new.count, new.mean.to(self.origin), new.m2.to(self.origin)))


def _first(batch: Any, index: int) -> Tensor:
    inner = batch
    while not isinstance(inner, (Tensor, np.ndarray)):
        if isinstance(inner, dict) and inner:
            inner = next(iter(inner.values()))
        elif isinstance(inner, (tuple, list)) and inner:
            inner = inner[0]
        else:
            raise TypeError(f"batch {index} is {type(batch).__name__}; its first element has to be a tensor")
    if isinstance(inner, np.ndarray):
        return torch.from_numpy(np.require(inner, requirements=["C", "W"]))  # a copy only where torch needs one
    return inner
