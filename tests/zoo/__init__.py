"""Every model that can be had, through one step plain and one step looked at."""

from .models.entry import Entry


def all_entries() -> list[Entry]:
    """The whole table, of the libraries that are installed."""
    from .models import (
        others,
        timm_models,
        torch_calls,
        torch_layers,
        torch_optimizers,
        torch_units,
        torchvision_models,
        transformers_models,
    )

    parts = (
        torch_units,
        torch_calls,
        torch_layers,
        torch_optimizers,
        others,
        torchvision_models,
        timm_models,
        transformers_models,
    )
    return [entry for part in parts for entry in part.ENTRIES]
