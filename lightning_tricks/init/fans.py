"""fan_in and fan_out of a weight: how many terms a pre-activation sums up, and how many a back-propagated error does.

A tensor alone does not tell: groups, transposed convolutions, strides, fused projections and recurrent gates are
known to the module only. ``weight_blocks`` therefore takes a module apart into the matrices that act independently.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lightning_tricks._compat.torch_modules import ConvNd, ConvTransposeNd, recurrent_weight_names

__all__ = ["Fans", "WeightBlock", "fans", "weight_blocks"]

_GATES = {"LSTM": "ifgo", "LSTMCell": "ifgo", "GRU": "rzn", "GRUCell": "rzn"}
_FUSED_NAMES = ("qkv", "c_attn", "in_proj")


class Fans(NamedTuple):
    """How many inputs reach one output (``fan_in``) and how many outputs one input reaches (``fan_out``)."""

    fan_in: float
    fan_out: float


@dataclass(frozen=True)
class WeightBlock:
    """Rows of a parameter that act as one weight matrix.

    Args:
        parameter: The attribute of the module, such as ``"weight"`` or ``"in_proj_weight"``.
        rows: The block's rows (dimension 0).
        fans: The fans of the block.
        label: What the block is where the parameter holds several (``"q"``, ``"forget gate"``), else ``""``.
    """

    parameter: str
    rows: slice
    fans: Fans
    label: str = ""


def fans(weight: Tensor | nn.Module) -> Fans:
    """fan_in and fan_out of a weight tensor, or exactly those of a module with one weight.

    For a tensor of torch's layout (out, in, *kernel): ``fan_in = in * prod(kernel)``, ``fan_out = out * prod(kernel)``.
    A module also knows its groups, whether it is transposed (the layout is then (in, out, *kernel)) and its stride s:
    a transposed convolution sums ``in / groups * prod(kernel) / prod(s)`` terms for an output on average, and a strided
    one passes ``out / groups * prod(kernel) / prod(s)`` error signals back to an input. An embedding sums one term.

    Args:
        weight: A tensor with at least 2 dimensions, or a module.

    Raises:
        ValueError: Fewer than 2 dimensions, a lazy module, a module without weights, or one that holds several matrices
            with different fans (use ``weight_blocks``).

    >>> fans(nn.Linear(3, 5).weight)
    Fans(fan_in=3, fan_out=5)
    >>> fans(nn.Conv2d(512, 512, 3, groups=512))
    Fans(fan_in=9, fan_out=9)
    >>> fans(nn.ConvTranspose2d(8, 4, 4, stride=2))
    Fans(fan_in=32, fan_out=64)
    """
    if isinstance(weight, Tensor):
        return _tensor_fans(weight)
    blocks = weight_blocks(weight)
    found = {block.fans for block in blocks}
    if len(found) != 1:
        names = ", ".join(f"{block.parameter} {block.label}".strip() for block in blocks) or "none"
        raise ValueError(
            f"{type(weight).__name__} has no single pair of fans (its weights: {names}); use weight_blocks(module)"
        )
    return found.pop()


def weight_blocks(module: nn.Module, name: str = "") -> list[WeightBlock]:
    """The weight matrices of a module, each with its fans; an empty list where the module has none of its own.

    Args:
        module: The module. The output projection of an ``nn.MultiheadAttention`` is a module of its own.
        name: Its path in the model. A linear layer called ``qkv``, ``in_proj`` or ``c_attn`` that is three times as
            wide as its input counts as three matrices.

    Raises:
        ValueError: A lazy module that has not seen a batch; the layer is named.

    >>> [(block.parameter, block.label, block.fans.fan_out) for block in weight_blocks(nn.MultiheadAttention(8, 2))]
    [('in_proj_weight', 'q', 8), ('in_proj_weight', 'k', 8), ('in_proj_weight', 'v', 8)]
    """
    for key, parameter in module.named_parameters(recurse=False):
        if isinstance(parameter, UninitializedParameter):
            raise ValueError(
                f"layer {name or type(module).__name__!r}: {key} of the lazy {type(module).__name__} has no shape yet; "
                "run one batch through the model before initialising it"
            )
    if isinstance(module, nn.MultiheadAttention):
        return _attention_blocks(module)
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return _recurrent_blocks(module)
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag, ConvNd, nn.Bilinear, nn.Linear)):
        weight_of(module, name)
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return [_whole("weight", module.weight, Fans(1, module.weight.shape[1]))]
    if isinstance(module, ConvNd):
        return [_whole("weight", module.weight, _conv_fans(module))]
    if isinstance(module, nn.Bilinear):
        out, first, second = module.weight.shape
        return [_whole("weight", module.weight, Fans(first * second, out))]
    if isinstance(module, nn.Linear):
        out, width = module.weight.shape
        if out == 3 * width and name.rpartition(".")[2].lower().endswith(_FUSED_NAMES):
            return _row_blocks("weight", module.weight, ("q", "k", "v"))
        return [_whole("weight", module.weight, Fans(width, out))]
    return []


def weight_of(module: nn.Module, name: str = "") -> Tensor:
    """The weight of a linear or convolutional layer.

    Raises:
        ValueError: There is none, as in a subclass that keeps it under another name.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        raise ValueError(
            f"layer {name or type(module).__name__!r} ({type(module).__name__}) has no tensor as its weight"
        )
    return weight


def _tensor_fans(tensor: Tensor) -> Fans:
    if isinstance(tensor, UninitializedParameter):
        raise ValueError("the lazy parameter has no shape yet; run one batch through the model before initialising it")
    if tensor.ndim < 2:
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} has no fan_in and fan_out: at least 2 dimensions "
            "(out, in, *kernel) are needed; biases start at zero, and for anything else pass fan="
        )
    kernel = math.prod(tensor.shape[2:])
    return Fans(tensor.shape[1] * kernel, tensor.shape[0] * kernel)


def _conv_fans(conv: ConvNd) -> Fans:
    kernel, steps = math.prod(conv.kernel_size), math.prod(conv.stride)
    inputs, outputs = conv.in_channels // conv.groups * kernel, conv.out_channels // conv.groups * kernel
    if isinstance(conv, ConvTransposeNd):
        return Fans(_share(inputs, steps), outputs)
    return Fans(inputs, _share(outputs, steps))


def _share(terms: int, steps: int) -> float:
    return terms // steps if terms % steps == 0 else terms / steps


def _whole(parameter: str, weight: Tensor, block_fans: Fans) -> WeightBlock:
    return WeightBlock(parameter, slice(0, weight.shape[0]), block_fans)


def _row_blocks(parameter: str, weight: Tensor, labels: tuple[str, ...]) -> list[WeightBlock]:
    rows = weight.shape[0] // len(labels)
    block_fans = Fans(weight.shape[1], rows)
    return [
        WeightBlock(parameter, slice(i * rows, (i + 1) * rows), block_fans, label) for i, label in enumerate(labels)
    ]


def _attention_blocks(attention: nn.MultiheadAttention) -> list[WeightBlock]:
    if attention.in_proj_weight is not None:
        return _row_blocks("in_proj_weight", attention.in_proj_weight, ("q", "k", "v"))
    weights = {label: getattr(attention, f"{label}_proj_weight") for label in "qkv"}
    return [
        WeightBlock(f"{label}_proj_weight", slice(0, weight.shape[0]), _tensor_fans(weight), label)
        for label, weight in weights.items()
    ]


def _recurrent_blocks(module: nn.RNNBase | nn.RNNCellBase) -> list[WeightBlock]:
    kind = module.mode if isinstance(module, nn.RNNBase) else type(module).__name__
    gates = tuple(f"{gate} gate" for gate in _GATES.get(kind, "")) or ("",)
    names = recurrent_weight_names(module) if isinstance(module, nn.RNNBase) else ["weight_ih", "weight_hh"]
    blocks: list[WeightBlock] = []
    for key in names:
        if key.startswith("weight_hr"):  # the projection of an LSTM with proj_size: one matrix for the output
            blocks.append(_whole(key, getattr(module, key), _tensor_fans(getattr(module, key))))
        elif key.startswith("weight"):
            blocks.extend(_row_blocks(key, getattr(module, key), gates))
    return blocks
