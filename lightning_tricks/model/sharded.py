"""Parameters of which each process holds a part, whole while their module runs: FSDP2's ``fully_shard``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_tricks._compat import torch_tensors
from lightning_tricks._compat.torch_modules import strip_wrappers

_WHOLE = (Tensor, nn.Parameter)


class Gathered:
    """Names of the whole weights that a running module is lent instead of its own parts.

    Args:
        model: The network, between two steps.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = {
            strip_wrappers(path): module
            for path, module in model.named_modules()
            if any(map(is_sharded, module.parameters(recurse=False)))
        }

    def name(self, tensor: Tensor, path: str) -> str | None:
        """The name of a parameter, or of what is a view of it, that the module at this path holds now."""
        module = self._modules.get(path)
        if module is None:
            return None
        same = (tensor, torch_tensors.base(tensor))
        own = module.named_parameters(recurse=False)
        return next((f"{path}.{name}".lstrip(".") for name, p in own if any(p is each for each in same)), None)


def is_sharded(parameter: Tensor) -> bool:
    """Whether this process holds a part of it only."""
    return type(parameter) not in _WHOLE and hasattr(parameter, "to_local")


def is_by_rows(parameter: Any, used: Tensor) -> bool:
    """Whether the parts are whole rows of what was used, which may be a transposed view of the parameter."""
    whole = all(placement.is_replicate() or placement.is_shard(0) for placement in parameter.placements)
    return whole and used.shape == parameter.shape and used.stride() == parameter.stride()


def local(x: Any) -> Tensor:
    """This process's part, or all of a tensor that is whole; the sums of several processes are merged later."""
    return x.to_local() if is_sharded(x) else x
