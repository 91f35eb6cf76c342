"""Which torch functions apply weights, and where in a call the input, the weight and the units are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Layout = Literal["rows", "transposed", "none"]
IsWeight = Callable[[Any], bool]


@dataclass(frozen=True)
class WeightedCall:
    """One call of a weighted operation.

    Args:
        input: The input x, or None where it is not a real number (indices).
        input_axis: The dimension of its features, negative; 0 where none can be named.
        weight: The weight as it was passed, or a view of it; itself possibly a view of a parameter.
        layout: How the weights into one unit lie in it: ``rows`` [units, ...], ``transposed``
            [inputs, units / groups, ...] or ``none``.
        unit_dims: How many leading dimensions of a weight in rows count units.
        bias: The bias, one entry a unit, or None.
        groups: Groups of a convolution.
        stride_product: Product of the strides of a transposed convolution: so many output positions share the
            weights that one input has.
        output_axis: The dimension of the units in the output, negative; 0 where the output is one unit's.
        inner: What inside the operation cannot be seen, or an empty string.
    """

    input: Tensor | None
    input_axis: int
    weight: Tensor
    layout: Layout = "rows"
    unit_dims: int = 1
    bias: Tensor | None = None
    groups: int = 1
    stride_product: int = 1
    output_axis: int = -1
    inner: str = ""

    def without_input(self) -> WeightedCall:
        """What may be kept until the update is read: the weights, outside the graph."""
        bias = None if self.bias is None else self.bias.detach()
        return dataclasses.replace(self, input=None, weight=self.weight.detach(), bias=bias)

    @property
    def fan_in(self) -> int:
        """Number of weights into one unit; 0 for a table that is looked up."""
        if self.layout == "none":
            return self.weight.shape[-1] if self.inner else 0
        if self.layout == "rows":
            return math.prod(self.weight.shape[self.unit_dims :])
        return self.weight.shape[0] // self.groups * math.prod(self.weight.shape[2:])

    def rows(self, weight: Tensor) -> Tensor | None:
        """``weight``, laid out as this call's, as ``[units, fan_in]``, or None."""
        if self.layout == "none" or weight.dim() < 2:
            return None
        if self.layout == "rows":
            return weight.flatten(0, self.unit_dims - 1).flatten(1)
        inputs, units = weight.shape[:2]
        grouped = weight.reshape(self.groups, inputs // self.groups, units, -1)
        return grouped.transpose(1, 2).reshape(self.groups * units, -1)


@dataclass(frozen=True)
class Operation:
    """A weighted operation: its name and how to read a call of it."""

    name: str
    read: Callable[[tuple[Any, ...], Mapping[str, Any], IsWeight], WeightedCall | None]


def _argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], position: int, name: str, default: Any = None) -> Any:
    return args[position] if position < len(args) else kwargs.get(name, default)


def _linear(args: tuple[Any, ...], kwargs: Mapping[str, Any], is_weight: IsWeight) -> WeightedCall:
    return WeightedCall(
        _argument(args, kwargs, 0, "input"),
        -1,
        _argument(args, kwargs, 1, "weight"),
        bias=_argument(args, kwargs, 2, "bias"),
    )


def _convolution(space: int, groups_at: int, layout: Layout) -> Callable[..., WeightedCall]:
    def read(args: tuple[Any, ...], kwargs: Mapping[str, Any], is_weight: IsWeight) -> WeightedCall:
        axis = -(space + 1)
        stride = _argument(args, kwargs, 3, "stride", 1)
        strides = [stride] * space if isinstance(stride, int) else list(stride)
        return WeightedCall(
            _argument(args, kwargs, 0, "input"),
            axis,
            _argument(args, kwargs, 1, "weight"),
            layout,
            bias=_argument(args, kwargs, 2, "bias"),
            groups=_argument(args, kwargs, groups_at, "groups", 1),
            stride_product=math.prod(strides) if layout == "transposed" else 1,
            output_axis=axis,
        )

    return read


def _bilinear(args: tuple[Any, ...], kwargs: Mapping[str, Any], is_weight: IsWeight) -> WeightedCall:
    weight = _argument(args, kwargs, 2, "weight")  # its inputs are products x_j x_k, which are nowhere to be seen
    return WeightedCall(_argument(args, kwargs, 0, "input1"), 0, weight, bias=_argument(args, kwargs, 3, "bias"))


def _embedding(weight_at: int) -> Callable[..., WeightedCall]:
    def read(args: tuple[Any, ...], kwargs: Mapping[str, Any], is_weight: IsWeight) -> WeightedCall:
        return WeightedCall(None, 0, _argument(args, kwargs, weight_at, "weight"), "none")

    return read


def _product(args: tuple[Any, ...], kwargs: Mapping[str, Any], is_weight: IsWeight) -> WeightedCall | None:
    return _read_product(args[0], args[1] if len(args) > 1 else next(iter(kwargs.values()), None), is_weight)


def _added_product(args: tuple[Any, ...], kwargs: Mapping[str, Any], is_weight: IsWeight) -> WeightedCall | None:
    first, second = [
        *args[1:3],
        *(kwargs[k] for k in ("mat1", "mat2", "batch1", "batch2", "mat", "vec") if k in kwargs),
    ][:2]
    call = _read_product(first, second, is_weight)
    added = _argument(args, kwargs, 0, "input")
    plain = kwargs.get("beta", 1) == 1 and kwargs.get("alpha", 1) == 1
    if call is None or not plain or call.output_axis != -1 or not is_weight(added) or added.dim() != 1:
        return call
    return dataclasses.replace(call, bias=added)


def _read_product(left: Any, right: Any, is_weight: IsWeight) -> WeightedCall | None:
    if is_weight(right) and isinstance(left, Tensor) and not is_weight(left):
        if right.dim() == 1:
            return WeightedCall(left, -1, right.unsqueeze(0), output_axis=0)
        return WeightedCall(left, -1, right.mT, unit_dims=right.dim() - 1)
    if is_weight(left) and isinstance(right, Tensor) and not is_weight(right):
        axis = -2 if right.dim() >= 2 else -1
        if left.dim() == 1:
            return WeightedCall(right, axis, left.unsqueeze(0), output_axis=0)
        return WeightedCall(right, axis, left, unit_dims=left.dim() - 1, output_axis=axis)
    return None


def _einsum(args: tuple[Any, ...], kwargs: Mapping[str, Any], is_weight: IsWeight) -> WeightedCall | None:
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = list(operands[0])
    if not isinstance(equation, str) or len(operands) != 2:
        return None
    weights = [index for index, operand in enumerate(operands) if is_weight(operand)]
    if len(weights) != 1:
        return None
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    dots = [
        operand.dim() - len(term.replace("...", "")) for operand, term in zip(operands, inputs.split(","), strict=True)
    ]
    fill = "0123456789"[: max(dots)] if "..." in inputs else ""
    terms = [term.replace("...", fill[len(fill) - n :]) for term, n in zip(inputs.split(","), dots, strict=True)]
    if not arrow:
        letters = "".join(terms)
        output = fill + "".join(sorted(letter for letter in set(letters) - set(fill) if letters.count(letter) == 1))
    output = output.replace("...", fill)
    weight, x = terms[weights[0]], terms[1 - weights[0]]
    units = [letter for letter in output if letter in weight and letter not in x]
    shared = [letter for letter in x if letter in weight and letter not in output]
    if not units:
        return None
    output_axis = output.index(units[-1]) - len(output)
    input_axis = x.index(shared[-1]) - len(x) if len(shared) == 1 else 0
    order = [weight.index(letter) for letter in weight if letter not in shared]
    order += [weight.index(letter) for letter in shared]
    apart = len(order) == len(weight) == len(set(weight)) and len(shared) > 0
    return WeightedCall(
        operands[1 - weights[0]],
        input_axis,
        operands[weights[0]].permute(order) if apart else operands[weights[0]],
        "rows" if apart else "none",
        unit_dims=len(weight) - len(shared),
        output_axis=output_axis,
    )


_RECURRENT = "recurrent kernel: the activations and products inside it are not seen"


def _recurrent(args: tuple[Any, ...], kwargs: Mapping[str, Any], is_weight: IsWeight) -> WeightedCall:
    weights = next(argument for argument in args[1:] if isinstance(argument, (list, tuple)) and len(argument) > 2)
    return WeightedCall(args[0], -1, weights[0], "none", inner=_RECURRENT)


def _recurrent_cell(args: tuple[Any, ...], kwargs: Mapping[str, Any], is_weight: IsWeight) -> WeightedCall:
    return WeightedCall(args[0], -1, args[2], "none", inner=_RECURRENT)


def _functions() -> dict[str, Operation]:
    table: dict[str, Operation] = {}
    table["functional.linear"] = table["kernel.linear"] = Operation("linear", _linear)
    for space in (1, 2, 3):
        straight = Operation(f"conv{space}d", _convolution(space, 6, "rows"))
        transposed = Operation(f"conv_transpose{space}d", _convolution(space, 6, "transposed"))
        for operation in (straight, transposed):
            table[f"functional.{operation.name}"] = table[f"torch.{operation.name}"] = operation
    table["functional.bilinear"] = table["torch.bilinear"] = Operation("bilinear", _bilinear)
    table["functional.embedding"] = Operation("embedding", _embedding(1))
    table["functional.embedding_bag"] = Operation("embedding_bag", _embedding(1))
    table["torch.embedding"] = Operation("embedding", _embedding(0))
    table["torch.einsum"] = table["joined.einsum"] = Operation("einsum", _einsum)
    product, added = Operation("matmul", _product), Operation("matmul", _added_product)
    for name in ("matmul", "mm", "bmm", "mv", "dot"):
        table[f"torch.{name}"] = table[f"Tensor.{name}"] = product
    table["Tensor.__matmul__"] = table["linalg.matmul"] = product
    for name in ("addmm", "baddbmm", "addmv"):
        table[f"torch.{name}"] = table[f"Tensor.{name}"] = added
    for name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        table[f"torch.{name}"] = Operation(name.removesuffix("_tanh").removesuffix("_relu"), _recurrent)
        table[f"torch.{name}_cell"] = Operation(f"{name}_cell", _recurrent_cell)
    return table


FUNCTIONS: Mapping[str, Operation] = _functions()  # by the names of ``torch_functions.resolve``
