"""Pictures of an ensemble."""

from __future__ import annotations

from typing import Any

import torch

from lightning_tricks.ensemble.evaluation.decomposition import Decomposition


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
