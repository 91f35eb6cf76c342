"""Names that compilation, DDP, FSDP and checkpointing put into the path of a module."""

from __future__ import annotations

_WRAPPERS = ("_orig_mod", "module", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def strip_wrappers(name: str) -> str:
    """A module's or parameter's path without what compilation, DDP, FSDP and checkpointing put into it.

    >>> strip_wrappers("_orig_mod.layers.0._checkpoint_wrapped_module.weight")
    'layers.0.weight'
    """
    parts = name.split(".")
    return ".".join(part for part in parts if part not in _WRAPPERS)
