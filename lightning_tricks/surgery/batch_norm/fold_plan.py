"""Which batch norm becomes part of which layer, and with which numbers; or why it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm

from lightning_tricks._compat.torch_modules import (
    ConvTransposeNd,
    DropoutNd,
    forward_hooks_of,
    forward_pre_hooks_of,
    padding_of,
    parameters_of,
    runs_convolution_of,
)
from lightning_tricks.model.data_flow import DataFlow, ModuleCall
from lightning_tricks.model.layers import is_batch_norm
from lightning_tricks.nn import batch_norm as ours
from lightning_tricks.surgery.batch_norm.absorb import (
    Unfoldable,
    absorb_after,
    absorb_before,
    scale_and_shift,
)
from lightning_tricks.surgery.batch_norm.normalized import ChannelPad, FoldedBatchNorm, NormalizedLayer

__all__ = ["FoldPlan", "is_foldable_layer", "is_watched"]

_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_FORWARDS = {cls.forward for cls in _LAYERS}
_OUR_FORWARDS = {getattr(ours, name).forward for name in ours.__all__ if name.endswith("d")}
_NORM_FORWARDS = {nn.BatchNorm2d.forward, nn.SyncBatchNorm.forward} | _OUR_FORWARDS


def is_foldable_layer(module: nn.Module) -> bool:
    return isinstance(module, (*_LAYERS, NormalizedLayer))


def _is_transparent(module: nn.Module) -> bool:
    folded = isinstance(module, FoldedBatchNorm) and not isinstance(module, ChannelPad)
    return type(module) is nn.Identity or folded or (isinstance(module, DropoutNd) and not module.training)


def is_watched(module: nn.Module) -> bool:
    return is_foldable_layer(module) or is_batch_norm(module) or _is_transparent(module)


class FoldPlan:
    """What folding will do, worked out before anything is changed.

    Attributes:
        parameters: Layer -> its new weight and bias, in float64.
        unpadded: Layers whose padding is done by what stands in the place of the batch norm.
        replacements: What stands in the place of each batch norm that is folded.
        into: Name of a folded batch norm -> name of the layer.
        left: Name of any other batch norm -> why it is left.
    """

    def __init__(self, model: nn.Module, flow: DataFlow) -> None:
        self.flow = flow
        self.names = {module: name for name, module in reversed(list(model.named_modules(remove_duplicate=False)))}
        self.parameters: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self.unpadded: set[nn.Module] = set()
        self.replacements: dict[nn.Module, nn.Module] = {}
        self.into: dict[str, str] = {}
        self.left: dict[str, str] = {}
        owners: dict[int, int] = {}
        for module in model.modules():
            for parameter in parameters_of(module).values():
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
        self.shared = {key for key, count in owners.items() if count > 1}
        for module in model.modules():
            if isinstance(module, NormalizedLayer):
                self._try(module.batch_norm, self._unwrap, module)
        for call in flow.calls:
            if is_batch_norm(call.module):
                self._try(call.module, self._fold, call)
        called = {call.module for call in flow.calls}
        called |= {call.module.batch_norm for call in flow.calls if isinstance(call.module, NormalizedLayer)}
        for name, module in model.named_modules():
            if is_batch_norm(module) and module not in called:
                self.left.setdefault(name, "not called")

    def _try(self, norm: nn.Module, fold: Callable[[Any], None], argument: Any) -> None:
        try:
            fold(argument)
        except Unfoldable as reason:
            self.left[self.names[norm]] = str(reason)

    def _unwrap(self, wrapper: Any) -> None:
        layer, norm = wrapper.layer, wrapper.batch_norm
        self._check_norm(norm)
        self._check_layer(layer)
        self.parameters[layer] = absorb_after(layer, *self._current(layer), *scale_and_shift(norm))
        self.replacements[wrapper] = layer
        self.into[self.names[norm]] = self.names[wrapper]

    def _fold(self, call: ModuleCall) -> None:
        norm: Any = call.module
        if len(self.flow.of(norm)) > 1:
            raise Unfoldable(f"called {len(self.flow.of(norm))} times in a forward pass")
        self._check_norm(norm)
        refusals = []
        for neighbour, fold in ((self._source, self._after), (self._target, self._before)):
            try:
                layer = neighbour(call)
                if layer is not None:
                    fold(call, layer)
                    return
            except Unfoldable as reason:
                refusals.append(str(reason))
        raise Unfoldable("; ".join(refusals) or "no linear or convolution layer directly before or behind it")

    def _after(self, call: ModuleCall, layer: Any) -> None:
        self._check(call.module, layer, layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)
        dims = self._dims(call, layer)
        self.parameters[layer] = absorb_after(layer, *self._current(layer), *_affine(call))
        self._replace(call.module, FoldedBatchNorm(self.names[layer], dims, call.module), into=layer)

    def _before(self, call: ModuleCall, layer: Any) -> None:
        self._check(call.module, layer, layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)
        dims = self._dims(call, layer)
        weight, bias, values = absorb_before(layer, *self._current(layer), *_affine(call))
        replacement: nn.Module = FoldedBatchNorm(self.names[layer], dims, call.module)
        if values is not None:
            if layer in self.unpadded:
                raise Unfoldable(f"the padding of {self.names[layer]!r} belongs to another batch norm")
            replacement = ChannelPad(self.names[layer], padding_of(layer), values.to(layer.weight.dtype), call.module)
            self.unpadded.add(layer)
        self.parameters[layer] = weight, bias
        self._replace(call.module, replacement, into=layer)

    def _replace(self, old: nn.Module, new: nn.Module, into: nn.Module) -> None:
        self.replacements[old] = new
        self.into[self.names[old]] = self.names[into]

    def _source(self, call: ModuleCall) -> nn.Module | None:
        """The layer whose output comes in, through what is transparent, and goes nowhere else."""
        source = call.source
        while source is not None and source.uses == 1 and self._passes(source.module):
            source = source.source
        if source is None or not isinstance(source.module, _LAYERS):
            return None
        self._used_once(source)
        return source.module

    def _target(self, call: ModuleCall) -> nn.Module | None:
        """The layer that takes the output, through what is transparent, and is the only one to do so."""
        while True:
            self._used_once(call)
            behind = self.flow.behind(call)
            if len(behind) != 1:
                return None
            if isinstance(behind[0].module, _LAYERS):
                return behind[0].module
            if not self._passes(behind[0].module):
                return None
            call = behind[0]

    def _used_once(self, call: ModuleCall) -> None:
        if call.uses != 1:
            raise Unfoldable(f"the output of {self.names[call.module]!r} is used {call.uses} times")

    def _passes(self, module: nn.Module) -> bool:
        """Whether it hands its input through, once everything planned so far is done."""
        return _is_transparent(self.replacements.get(module, module)) and len(self.flow.of(module)) == 1

    def _check_norm(self, norm: Any) -> None:
        if type(norm).forward not in _NORM_FORWARDS:
            raise Unfoldable(f"{type(norm).__name__} has a forward of its own")
        if forward_hooks_of(norm) or forward_pre_hooks_of(norm):
            raise Unfoldable("it has forward hooks")
        if self.flow.is_asked(norm):
            raise Unfoldable("the forward reads one of its weights or statistics")

    def _check(self, norm: Any, layer: Any, channels: int) -> None:
        self._check_layer(layer)
        calls = len(self.flow.of(layer))
        if calls != 1:
            raise Unfoldable(f"{self.names[layer]!r} is called {calls} times in a forward pass")
        if norm.num_features != channels:
            raise Unfoldable(f"it has {norm.num_features} channels, {self.names[layer]!r} has {channels}")

    def _check_layer(self, layer: Any) -> None:
        name, kind = self.names[layer], type(layer)
        if kind.forward not in _FORWARDS or not runs_convolution_of(kind, _LAYERS):
            raise Unfoldable(f"{name!r} is a {kind.__name__} with a forward of its own")
        before = forward_pre_hooks_of(layer).values()
        if forward_hooks_of(layer) or any(not isinstance(hook, WeightNorm) for hook in before):
            raise Unfoldable(f"{name!r} has forward hooks")
        own = {id(parameter) for parameter in layer.parameters()}
        if own & self.shared or own & self.flow.borrowed:
            raise Unfoldable(f"the parameters of {name!r} are used elsewhere as well")

    def _dims(self, call: ModuleCall, layer: Any) -> int:
        """The dimensions for which the channels of batch norm are those of the layer."""
        dims = 2 if isinstance(layer, nn.Linear) else len(layer.kernel_size) + 2
        if call.dims not in (None, dims):
            raise Unfoldable(f"it normalises dimension 1 of {call.dims}-dimensional inputs, not the layer's channels")
        return dims

    def _current(self, layer: Any) -> tuple[Tensor, Tensor]:
        if layer in self.parameters:
            return self.parameters[layer]
        with torch.no_grad():
            hooks = [hook for hook in forward_pre_hooks_of(layer).values() if isinstance(hook, WeightNorm)]
            weight = hooks[0].compute_weight(layer) if hooks else layer.weight
            weight = weight.detach().double()
            if layer.bias is not None:
                return weight, layer.bias.detach().double()
            transposed = isinstance(layer, ConvTransposeNd)
            return weight, weight.new_zeros(weight.shape[1] * layer.groups if transposed else weight.shape[0])


def _affine(call: ModuleCall) -> tuple[Tensor, Tensor]:
    norm: Any = call.module
    return scale_and_shift(norm)
