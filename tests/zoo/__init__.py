"""Every model that can be had, through one step plain and one step looked at."""

from .entry import Entry


def all_entries() -> list[Entry]:
    """The whole table, of the libraries that are installed."""
    from . import oddities, others, timm_models, torchvision_models, transformers_models

    parts = (oddities, others, torchvision_models, timm_models, transformers_models)
    return [entry for part in parts for entry in part.ENTRIES]
