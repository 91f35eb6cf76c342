"""Why an ensemble is better than its members: ambiguity, and the correlation of the members' errors."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


class Decomposition:
    """Squared errors of K members and of their mean over N patterns.

    Attributes:
        ensemble_error: Mean squared error of the mean prediction.
        member_errors: ``[K]``: mean squared error of each member.
        ambiguity: Mean squared distance of the members from their mean.
        mean_errors: ``[K, ...]``: d_k, each member's mean error (its bias), per output.
        products: ``[K, K]``: mean product of the errors of two members.
    """

    # No dataclass: torchmetrics would look for tensors inside and turn those of one member into scalars.
    def __init__(self, ensemble_error: Tensor, ambiguity: Tensor, mean_errors: Tensor, products: Tensor) -> None:
        self.ensemble_error, self.ambiguity = ensemble_error, ambiguity
        self.mean_errors, self.products = mean_errors, products
        self.member_errors = products.diagonal()

    @property
    def mean_member_error(self) -> Tensor:
        return self.member_errors.mean()

    @property
    def ratio(self) -> Tensor:
        """Ensemble error over mean member error."""
        return self.ensemble_error / self.mean_member_error

    @property
    def correlation(self) -> Tensor:
        """rho, uncentred: mean of ``<e_k e_l>`` over pairs of members, over mean ``<e_k^2>``; NaN for one member."""
        count = self.products.shape[0]
        off_diagonal = (self.products.sum() - self.products.diagonal().sum()) / (count * (count - 1) or float("nan"))
        return off_diagonal / self.mean_member_error

    def predicted_ratio(self, num_members: int | None = None) -> Tensor:
        """``rho + (1 - rho) / K``: what this correlation makes of K members; 1/K where errors are uncorrelated."""
        rho = self.correlation
        return rho + (1 - rho) / (num_members or self.products.shape[0])

    @property
    def error_by_size(self) -> Tensor:
        """``[K]``: error of the ensemble of the first 1, 2, ... K members."""
        corners = self.products.cumsum(0).cumsum(1).diagonal()
        sizes = torch.arange(1, len(corners) + 1, device=corners.device, dtype=corners.dtype)
        return corners / sizes**2

    @property
    def inequality(self) -> Tensor:
        """How unequal the members are: standard deviation of their errors over the mean error (0: all equal)."""
        return self.member_errors.std(unbiased=False) / self.mean_member_error


class EnsembleDecomposition(Metric):
    """Splits the squared error of an ensemble: error = mean member error - ambiguity = (rho + (1 - rho)/K) x mean.

    ``(1/K sum f_k - t)^2 = 1/K sum (f_k - t)^2 - 1/K sum (f_k - f)^2`` (Krogh & Vedelsby 1995, "Neural network
    ensembles, cross validation, and active learning", the ambiguity decomposition), per pattern, summed over outputs.
    For classification the outputs are probabilities and the targets classes, taken as one-hot rows (Brier score).

    Args:
        num_members: K.

    >>> metric = EnsembleDecomposition(num_members=2)
    >>> metric.update(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), torch.tensor([1.0, 1.0]))
    >>> found = metric.compute()
    >>> found.ensemble_error.item(), found.mean_member_error.item(), found.ambiguity.item()
    (1.0, 1.5, 0.5)
    """

    full_state_update = False
    products: Tensor
    errors: Tensor
    ambiguity: Tensor
    ensemble: Tensor
    count: Tensor

    def __init__(self, num_members: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_members = num_members
        self.add_state("products", torch.zeros(num_members, num_members, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("errors", torch.zeros(num_members, 1, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("ambiguity", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("ensemble", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, members: Tensor, target: Tensor) -> None:
        """Add predictions ``[K, N, ...]``, targets ``[N, ...]``; or probabilities ``[K, N, C]``, classes ``[N]``."""
        if members.shape[0] != self.num_members:
            raise ValueError(f"predictions of shape {tuple(members.shape)} are not of num_members={self.num_members}")
        wide = members.double().flatten(2) if members.dim() > 2 else members.double().unsqueeze(-1)
        truth = as_values(members, target).double().reshape(wide.shape[1:])
        errors = wide - truth
        mean = wide.mean(0)
        flat = errors.flatten(1)
        self.products = self.products + flat @ flat.T
        self.errors = self.errors + errors.sum(1)
        self.ambiguity = self.ambiguity + (wide - mean).square().sum() / self.num_members
        self.ensemble = self.ensemble + (mean - truth).square().sum()
        self.count = self.count + members.shape[1]

    def compute(self) -> Decomposition:
        products = self.products / self.count
        return Decomposition(
            ensemble_error=self.ensemble / self.count,
            ambiguity=self.ambiguity / self.count,
            mean_errors=(self.errors / self.count).squeeze(-1),
            products=products,
        )

    def plot(self, ax: Any = None) -> Any:
        """Error against the number of members; see :func:`plot_error_by_size`."""
        return plot_error_by_size(self.compute(), ax=ax)


def as_values(members: Tensor, target: Tensor) -> Tensor:
    """Targets in the shape of one member's predictions; classes as one-hot rows."""
    shape = members.shape[1:]
    if target.shape == shape:
        return target
    if not target.is_floating_point() and target.shape == shape[:-1]:
        return F.one_hot(target, shape[-1])
    if target.numel() == shape.numel() and target.shape[0] == shape[0]:
        return target.reshape(shape)
    raise ValueError(f"targets of shape {tuple(target.shape)} do not fit predictions of shape {tuple(members.shape)}")


def decompose(members: Tensor, target: Tensor) -> Decomposition:
    """:class:`EnsembleDecomposition` of one set of predictions ``[K, N, ...]``.

    >>> decompose(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), torch.tensor([1.0, 1.0])).ratio.item()
    0.6666666666666666
    """
    metric = EnsembleDecomposition(members.shape[0]).to(members.device)
    metric.update(members, target)
    return metric.compute()


def plot_error_by_size(found: Decomposition, *, ax: Any = None, law: Decomposition | None = None) -> Any:
    """Error against the number of members: measured, the 1/K of uncorrelated errors, and rho + (1 - rho)/K.

    Args:
        found: Measured on some patterns.
        ax: Axes of matplotlib; None: new ones.
        law: Where mean member error and rho of the curve come from (other patterns, say); None: ``found`` itself.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    law = found if law is None else law
    sizes = torch.arange(1, len(found.member_errors) + 1)
    start = float(law.mean_member_error)
    rho = float(law.correlation)
    ax.plot(sizes, start / sizes, ":", color="0.55", label="1/K: uncorrelated errors")
    ax.plot(sizes, [start * (rho + (1 - rho) / int(k)) for k in sizes], color="tab:orange", lw=2.2,
            label=f"ρ + (1 − ρ)/K with ρ = {rho:.2f}")  # fmt: skip
    ax.plot(sizes, found.error_by_size.cpu(), "o", ms=4, color="tab:blue", label="measured: first K members")
    ax.axhline(start * rho, color="0.8", lw=1, zorder=0)
    ax.set(xlabel="members K", ylabel="squared error", xlim=(0, len(sizes) + 1), ylim=(0, None))
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return ax.figure
