"""Reading and writing a layer's weight wherever it lives: a parameter, a parametrization, or the older weight_norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lightning_tricks._compat.torch_modules import forward_pre_hooks_of, parameters_of

__all__ = ["NotWritableError", "bias_names", "identity_of", "is_frozen", "write_weight", "zero_biases"]


class NotWritableError(ValueError):
    """A weight cannot take the values asked for; the message says why. It is as it was."""


def identity_of(module: nn.Module, name: str) -> Tensor:
    """The stored tensor behind a weight: tied weights share it."""
    if parametrize.is_parametrized(module, name):
        return next(module.parametrizations[name].parameters(recurse=False))  # type: ignore[index, union-attr]
    for stored in (f"{name}_v", f"{name}_orig"):
        if name not in parameters_of(module) and stored in parameters_of(module):
            return getattr(module, stored)
    return getattr(module, name)


def is_frozen(module: nn.Module, name: str) -> bool:
    return not identity_of(module, name).requires_grad


@torch.no_grad()
def write_weight(module: nn.Module, name: str, value: Tensor) -> None:
    """Makes ``module.name`` equal to ``value``, through its parametrization where it has one.

    Raises:
        NotWritableError: A parametrization or a hook makes something else of the values (spectral norm, pruning).
    """
    if parametrize.is_parametrized(module, name):
        _write_parametrized(module, name, value)
    elif name in parameters_of(module):
        getattr(module, name).copy_(value)
    elif f"{name}_g" in parameters_of(module):
        _write_weight_norm(module, name, value)
    else:
        raise NotWritableError(f"{name} is computed from other tensors in a hook (spectral norm, pruning)")


def _write_parametrized(module: nn.Module, name: str, value: Tensor) -> None:
    originals = list(module.parametrizations[name].parameters(recurse=False))  # type: ignore[index, union-attr]
    before = [original.detach().clone() for original in originals]
    kinds = ", ".join(type(p).__name__ for p in module.parametrizations[name])  # type: ignore[index]
    try:
        setattr(module, name, value)
        got = getattr(module, name)
        tolerance = 10 * torch.finfo(value.dtype).eps * float(value.abs().max())
        if bool((got - value).abs().max() <= tolerance):
            return
        reason = f"the parametrization of {name} ({kinds}) makes something else of the values"
    except (NotImplementedError, RuntimeError, ValueError) as error:
        reason = f"the parametrization of {name} ({kinds}) cannot be inverted: {error}"
    for original, old in zip(originals, before, strict=True):
        original.copy_(old)
    raise NotWritableError(reason)


def _write_weight_norm(module: nn.Module, name: str, value: Tensor) -> None:
    """The hook form: weight = g v / |v|, recomputed before each forward; v takes the values and g their norms."""
    hook = next(h for h in forward_pre_hooks_of(module).values() if getattr(h, "name", None) == name)
    size, direction = getattr(module, f"{name}_g"), getattr(module, f"{name}_v")
    direction.copy_(value)
    size.copy_(torch.norm_except_dim(value, 2, hook.dim))  # type: ignore[attr-defined]
    setattr(module, name, hook.compute_weight(module))  # type: ignore[attr-defined]


def bias_names(module: nn.Module) -> list[str]:
    """The biases that are added to a pre-activation (not the learned key and value of an attention layer)."""
    if isinstance(module, nn.MultiheadAttention):
        return ["in_proj_bias"] if module.in_proj_bias is not None else []
    return [name for name, parameter in module.named_parameters(recurse=False) if name.startswith("bias")]


@torch.no_grad()
def zero_biases(module: nn.Module) -> None:
    for name in bias_names(module):
        bias = getattr(module, name)
        if bias.requires_grad:
            bias.zero_()
