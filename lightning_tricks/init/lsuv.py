"""Layer-sequential unit-variance initialisation: every layer's output to standard deviation 1, in one forward pass."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightning_tricks.init.fans import WeightBlock, weight_blocks
from lightning_tricks.init.orthogonal import orthonormalize
from lightning_tricks.init.report import NoEffectWarning, Report
from lightning_tricks.init.weights import NotWritableError, identity_of, is_frozen, write_weight, zero_biases
from lightning_tricks.model.arguments import check_module
from lightning_tricks.model.batches import Forward, run_model
from lightning_tricks.model.isolated import isolated
from lightning_tricks.model.layers import Model, is_mean_only, is_weighted

__all__ = ["lsuv_"]


def lsuv_(
    model: Model,
    batch: Any,
    *,
    forward: Forward | None = None,
    orthogonal: bool = True,
    report: Report | None = None,
) -> Model:
    r"""Scales every weighted layer so that its output on a batch has standard deviation 1 (Mishkin & Matas 2016).

    .. math:: W \leftarrow W / \mathrm{std}(W x),\quad b \leftarrow 0

    The paper iterates a layer at a time. A layer without bias is linear in its weights, so one division is exact, and
    it is done inside the forward pass, before the next layer runs: the whole network takes one pass, in the order of
    execution, through shared layers (scaled by their first call), residual connections and attention (q, k and v are
    scaled one by one, then the output projection). Weights that are tied are scaled by the first layer that uses them.
    Before a batch norm that only takes the mean away, what that leaves has the standard deviation of 1.

    Dropout is off during the pass, batch norm does what its training flag says; flags, buffers and the random number
    state are restored. No random numbers are drawn: the orthonormal start is the Q of the weights that are there.

    Args:
        model: Any module; changed in place.
        batch: What the model takes; of a tuple or list the first element.
        forward: ``forward(model, batch)`` where that is not how the model is called.
        orthogonal: Make the weights orthonormal first, as the paper does. Without it they are only scaled.
        report: Collects the standard deviation each layer had, and what was left.

    Returns:
        The model.

    Raises:
        TypeError: ``batch`` is None, a DataLoader or a dataset, and no ``forward`` takes it.
        ValueError: A layer's output is constant or not finite, or a parameter is lazy or on the meta device; the
            layer is named. After an error the weights are as before.

    >>> net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    >>> x = torch.randn(256, 16)
    >>> round(float(lsuv_(net, x)(x).detach().std()), 2)
    1.0
    """
    check_module(model)
    if forward is None and (batch is None or isinstance(batch, (DataLoader, Dataset))):
        raise TypeError(
            f"batch has to be one batch that the model takes, not {type(batch).__name__}: pass next(iter(loader))"
        )
    report = Report() if report is None else report
    names = {module: name for name, module in model.named_modules() if is_weighted(module)}
    blocks = {module: weight_blocks(module, name) for module, name in names.items()}
    for module, name in names.items():
        if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
            raise ValueError(f"layer {name!r} is on the meta device; give the model storage with to_empty(device=...)")
    if not names:
        warnings.warn(f"{type(model).__name__} has no layer that LSUV could scale", NoEffectWarning, stacklevel=2)
        return model
    before = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    passing = _Pass(names, blocks, orthogonal, Report())
    handles = []
    try:
        for module in names:
            handles.append(module.register_forward_pre_hook(passing.enter, with_kwargs=True))
            handles.append(module.register_forward_hook(passing.leave))
        for module in model.modules():
            if is_mean_only(module) and module.training:
                handles.append(module.register_forward_pre_hook(passing.enter_mean_only))
        with isolated(model, norms_as_set=True, layer_by_layer=True):
            run_model(model, batch, forward)
    except BaseException:
        with torch.no_grad():
            for parameter, old in before:
                parameter.copy_(old)
        raise
    finally:
        for handle in handles:
            handle.remove()
    reached = passing.seen
    for module, name in names.items():
        if module not in reached:
            passing.report.leave(name, "not reached by the forward pass")
    report.changed.extend(passing.report.changed)
    report.left.extend(passing.report.left)
    return model


class _Pass:
    """What happens at each layer while the forward pass comes by."""

    def __init__(
        self, names: dict[nn.Module, str], blocks: dict[nn.Module, list[WeightBlock]], orthogonal: bool, report: Report
    ) -> None:
        self.names, self.blocks, self.orthogonal, self.report = names, blocks, orthogonal, report
        self.seen: set[nn.Module] = set()
        self.scaled: dict[Tensor, str] = {}
        self.last: tuple[Tensor, nn.Module, str] | None = None  # the output that was scaled last, and by which weight
        self.open: set[nn.Module] = set()  # layers between enter and leave whose output is to be scaled

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module in self.seen:
            return
        if self._prepare(module):
            self.open.add(module)
        if isinstance(module, nn.MultiheadAttention):
            self._scale_projections(module, args, kwargs)
            if self._prepare(module.out_proj):
                self.open.add(module.out_proj)

    def leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        layer = module.out_proj if isinstance(module, nn.MultiheadAttention) else module
        if layer not in self.open:
            return None
        self.open.discard(layer)
        result = output[0] if isinstance(output, tuple) else output
        std = self._std(layer, result)
        (parameter,) = {block.parameter for block in self.blocks[layer]}
        weight = getattr(layer, parameter)
        write_weight(layer, parameter, weight / std)
        self.report.change(self.names[layer], "lsuv", {"std before": std, "std asked": 1.0})
        scaled = result / std
        self.last = (scaled, layer, parameter)
        return (scaled, *output[1:]) if isinstance(output, tuple) else scaled

    def enter_mean_only(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A batch norm that only takes the means away: what it leaves of the layer before it is to have the std."""
        if self.last is None or not args or args[0] is not self.last[0]:
            return
        (output, layer, parameter), self.last = self.last, None
        axes = [axis for axis in range(output.dim()) if axis != 1]
        std = self._std(layer, output - output.mean(axes, keepdim=True))
        write_weight(layer, parameter, getattr(layer, parameter) / std)
        output.div_(std)  # in place, for whoever else takes it

    def _prepare(self, module: nn.Module) -> bool:
        """Orthonormal weights and no bias; False where the layer is left as it is."""
        self.seen.add(module)
        name = self.names[module]
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            self.report.leave(name, f"the output of {type(module).__name__} is bounded by its gates")
            return False
        parameters = list(dict.fromkeys(block.parameter for block in self.blocks[module]))
        for parameter in parameters:
            stored = identity_of(module, parameter)
            if stored in self.scaled:
                self.report.leave(name, f"{parameter} is tied to layer {self.scaled[stored]!r}, which ran first")
                return False
            if is_frozen(module, parameter):
                self.report.leave(name, f"{parameter} is frozen (requires_grad=False)")
                return False
        try:
            for parameter in parameters:
                self._start(module, parameter)
        except NotWritableError as error:
            self.report.leave(name, str(error))
            return False
        for parameter in parameters:
            self.scaled[identity_of(module, parameter)] = name
        zero_biases(module)
        return True

    def _start(self, module: nn.Module, parameter: str) -> None:
        weight = getattr(module, parameter).detach()
        value = weight.clone()
        if self.orthogonal and not isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            for block in self.blocks[module]:
                if block.parameter == parameter:
                    orthonormalize(value[block.rows], module)
        write_weight(module, parameter, value)  # also without a change: it tells whether the layer can be scaled

    def _scale_projections(self, module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """q, k and v never leave the attention layer: their products are made here, from what goes into it."""
        if module not in self.open:
            return
        self.open.discard(module)
        inputs = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        values: dict[str, Tensor] = {}
        for block, key in zip(self.blocks[module], ("query", "key", "value"), strict=True):
            value = values.setdefault(block.parameter, getattr(module, block.parameter).detach().clone())
            rows = value[block.rows]
            std = self._std(module, F.linear(inputs[key], rows), f" ({block.label})")
            rows.div_(std)
            self.report.change(self.names[module], f"lsuv ({block.label})", {"std before": std, "std asked": 1.0})
        for parameter, value in values.items():
            write_weight(module, parameter, value)

    def _std(self, module: nn.Module, output: Tensor, part: str = "") -> float:
        std = float(output.detach().double().std(unbiased=output.numel() > 1))  # as tensor.std() has it
        if not (math.isfinite(std) and std > 0):
            raise ValueError(
                f"the output of layer {self.names[module]!r}{part} has standard deviation {std} on this batch: it "
                "cannot be scaled to 1. Look for constant or non-finite input, or for units that are dead before it"
            )
        return std
