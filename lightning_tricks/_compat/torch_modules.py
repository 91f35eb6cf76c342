"""Base classes of torch's layers, and what a module keeps under private names: parameters, buffers, children, hooks.

Base classes that a torch does not have are stood in for by the union of the public classes, which ``isinstance`` and
``|`` take in the same way; only what users derive from the base class itself is then not known. The dictionaries are as
old as ``nn.Module`` and have no other name.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv, dropout
from torch.nn.modules import module as modules
from torch.nn.modules.module import register_module_forward_hook

__all__ = [
    "BatchNorm",
    "ConvNd",
    "ConvTransposeNd",
    "DropoutNd",
    "NormBase",
    "TRAINER",
    "apply_alone",
    "backward_hooks_of",
    "buffers_of",
    "children_of",
    "count_state_hooks",
    "forward_hooks_of",
    "forward_pre_hooks_of",
    "hear_calls",
    "keep_on_the_slow_path",
    "may_take_the_fast_path",
    "move_call_hooks",
    "padding_of",
    "parameters_of",
    "recurrent_weight_names",
    "remove_padding",
    "runs_convolution_of",
    "strip_wrappers",
]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.LazyBatchNorm1d, nn.LazyBatchNorm2d, nn.LazyBatchNorm3d),
)
_INSTANCE_NORMS = (
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.LazyInstanceNorm1d, nn.LazyInstanceNorm2d, nn.LazyInstanceNorm3d),
)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def _base(module: Any, name: str, public: Iterable[Any]) -> Any:
    """The base class of this name, or the union of the public classes."""
    return getattr(module, name, None) or functools.reduce(operator.or_, public)


if TYPE_CHECKING:
    from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
    from torch.nn.modules.batchnorm import _NormBase as NormBase
    from torch.nn.modules.conv import _ConvNd as ConvNd
    from torch.nn.modules.conv import _ConvTransposeNd as ConvTransposeNd
    from torch.nn.modules.dropout import _DropoutNd as DropoutNd
else:
    ConvNd = _base(conv, "_ConvNd", (*_CONVOLUTIONS, *_TRANSPOSED))
    ConvTransposeNd = _base(conv, "_ConvTransposeNd", _TRANSPOSED)
    BatchNorm = _base(batchnorm, "_BatchNorm", _BATCH_NORMS)
    NormBase = _base(batchnorm, "_NormBase", (*_BATCH_NORMS, *_INSTANCE_NORMS))
    DropoutNd = _base(dropout, "_DropoutNd", _DROPOUTS)

Hooks = dict[int, Callable[..., Any]]
TRAINER = "_trainer"  # where a LightningModule keeps its Trainer; a version that has another name is never met by it


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """A module's own parameters; writing to it takes the place of ``setattr`` without its checks."""
    return module._parameters


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """A module's own buffers; writing to it takes the place of ``setattr`` without its checks."""
    return module._buffers


def children_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """A module's children with every name that they have in it, and with the empty places."""
    return module._modules


def forward_hooks_of(module: nn.Module) -> Hooks:
    """The hooks that run after a module's forward."""
    return module._forward_hooks


def forward_pre_hooks_of(module: nn.Module) -> Hooks:
    """The hooks that run before a module's forward."""
    return module._forward_pre_hooks


def hear_calls(hook: Callable[..., Any]) -> Callable[[], None]:
    """Call ``hook(module, args, kwargs, output)`` after every module; what is returned ends that.

    torch's own handle leaves a flag behind, by which compiled modules believe that a hook is there.
    """
    handle = register_module_forward_hook(hook, with_kwargs=True)

    def end() -> None:
        handle.remove()
        getattr(modules, "_global_forward_hooks_with_kwargs", {}).pop(handle.id, None)

    return end


def backward_hooks_of(module: nn.Module) -> list[Callable[..., Any]]:
    """The hooks that run before and after a module's backward."""
    return [*module._backward_pre_hooks.values(), *module._backward_hooks.values()]


# Where a module keeps the hooks that users attach, each with the flags that belong to the hooks of the first.
_CALL_HOOKS = (
    ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    ("_backward_pre_hooks",),
    ("_backward_hooks",),
)
_STATE_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def move_call_hooks(old: nn.Module, new: nn.Module) -> None:
    """Moves the hooks around forward and backward, but for an old module's own methods, from one to the other."""
    for names in _CALL_HOOKS:
        source = getattr(old, names[0])
        kept = {key: hook for key, hook in source.items() if getattr(hook, "__self__", None) is not old}
        if not kept:
            continue
        for key in source.keys() - kept.keys():
            del source[key]
        # The handles hold these very dictionaries: moving them keeps handle.remove() working.
        for name in names:
            merged = getattr(old, name)
            merged.update(getattr(new, name))
            setattr(new, name, merged)
            setattr(old, name, type(merged)())
    kind = getattr(old, "_is_full_backward_hook", None)
    if kind is not None and new._backward_hooks:
        new._is_full_backward_hook = kind


def count_state_hooks(module: nn.Module) -> int:
    """How many hooks around saving and loading a module has."""
    return sum(len(getattr(module, name)) for name in _STATE_HOOKS)


def apply_alone(module: nn.Module, convert: Callable[[Tensor], Tensor]) -> None:
    """What ``.to`` does to a module's tensors, without its children, so that a module can keep some of its dtypes."""
    children = module._modules
    module._modules = {}
    try:
        module._apply(convert)
    finally:
        module._modules = children


def recurrent_weight_names(module: nn.RNNBase) -> list[str]:
    """The parameters of a recurrent layer, layer by layer and direction by direction."""
    names = getattr(module, "_flat_weights_names", None)
    if names is not None:
        return list(names)
    kinds = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if module.bias else [])]
    kinds += ["weight_hr"] if module.proj_size > 0 else []
    ends = ("", "_reverse") if module.bidirectional else ("",)
    return [f"{kind}_l{layer}{end}" for layer in range(module.num_layers) for end in ends for kind in kinds]


def padding_of(layer: ConvNd) -> list[int]:
    """The padding of a convolution as ``F.pad`` takes it: last dimension first, both ends."""
    padding = getattr(layer, "_reversed_padding_repeated_twice", None)
    if padding is not None:
        return list(padding)
    if layer.padding == "valid":
        return [0] * (2 * len(layer.kernel_size))
    if isinstance(layer.padding, str):  # "same"
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return [side for side in reversed(layer.padding) for _ in range(2)]


def remove_padding(layer: ConvNd) -> None:
    """Makes a convolution one without padding."""
    layer.padding = (0,) * len(layer.kernel_size)
    if hasattr(layer, "_reversed_padding_repeated_twice"):
        layer._reversed_padding_repeated_twice = [0] * (2 * len(layer.kernel_size))


def runs_convolution_of(kind: type, kinds: Iterable[type]) -> bool:
    """Whether a class computes its convolution as one of these, or has none: a subclass may have its own."""
    return getattr(kind, "_conv_forward", None) in {getattr(other, "_conv_forward", None) for other in kinds}


def keep_on_the_slow_path(model: nn.Module, layers: Iterable[nn.Module]) -> None:
    """Lets transformers call these layers: in eval mode their fused kernel reads the weights and calls none.

    By the two flags that torch itself sets where the kernel does not fit.
    """
    wanted = set(layers)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and wanted.intersection(module.modules()):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder) and wanted.intersection(module.modules()):
            module.use_nested_tensor = False


def may_take_the_fast_path(module: nn.Module, inputs: Iterable[Any]) -> bool:
    """Whether torch would run this module by its fused kernels, which it does unless a function mode looks on.

    They differ in their last bits, and where there is padding in its outputs. What torch asks beside (an even number of
    heads, no autocast ...) is not asked here: such a module may be said to take the fast path and does not.
    """
    if not isinstance(module, (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)):
        return False
    first = next(iter(module.layers), module) if isinstance(module, nn.TransformerEncoder) else module
    if first.training:
        return False
    tensors = [*first.parameters(), *(x for x in inputs if isinstance(x, Tensor))]
    return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))


# Names that compilation, DDP, FSDP and checkpointing put into the path of a module.
_WRAPPERS = ("_orig_mod", "module", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def strip_wrappers(name: str) -> str:
    """A module's or parameter's path without what compilation, DDP, FSDP and checkpointing put into it.

    >>> strip_wrappers("_orig_mod.layers.0._checkpoint_wrapped_module.weight")
    'layers.0.weight'
    """
    parts = name.split(".")
    return ".".join(part for part in parts if part not in _WRAPPERS)
