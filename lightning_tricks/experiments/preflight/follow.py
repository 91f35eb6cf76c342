"""Two runs of one call beside each other: the first function whose output differs where its input does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from lightning_tricks._compat.torch_modules import strip_wrappers
from lightning_tricks.model.batches import tensors_in
from lightning_tricks.probes.measure import losses
from lightning_tricks.probes.records.preflight import Kind, Place
from lightning_tricks.probes.watch.annotations import TensorAnnotations
from lightning_tricks.probes.watch.loss_path import softmax_axis

_SAME = 1e-3  # of the size of what is compared
_SAME_EXACTLY = 1e-5  # where a repeated call gives the same bits: what is left is rounding, of float32 6e-8
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("multi_head_attention_forward", "scaled_dot_product_attention"), "attention"),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), "recurrence"),
    **dict.fromkeys(("softmax", "log_softmax", "softmin", "gumbel_softmax", "normalize"), "softmax"),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"), "cumulation"),
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "view_as", "reshape_as"), "view"),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), "convolution"),
}
# Not the variance: discriminators are shown how much a batch of made images varies (Karras et al. 2018, section 3).
_REDUCTIONS = ("mean", "sum", "nanmean", "nansum", "prod", "logsumexp")
_MOST_GIVEN = 8  # tensors of a call
_AROUND = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
# What of a tensor is compared: parts of it, each with the axis that it was taken along.
Select = Callable[[Tensor], list[tuple[int, Tensor]]]


@dataclass
class Call:
    """One call of a torch function.

    Args:
        function: Its name.
        frames: Paths and modules that were running, the outermost first.
        args, kwargs: Whatever of its arguments is no tensor; shapes of tensors.
        sources: The call and output that each of its tensors came from; None where that is not known.
        shapes: Of its outputs.
        reduced: Of a mean or a sum what the first selection takes of its input; of the second run how that differs.
        parts: For every selection and output what was selected; of the second run how much it differs.
    """

    function: str
    frames: tuple[tuple[str, nn.Module], ...]
    shape: tuple[int, ...]
    axis: int | None
    sources: tuple[tuple[int, int] | None, ...]
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    reduced: list[tuple[int, Tensor]] = field(default_factory=list)
    parts: list[list[list[tuple[int, Tensor]]]] = field(default_factory=list)


class CallRecorder(TorchFunctionMode):
    """Notes every call of a run; with the calls of a run before, how much each differs from that.

    Batch norm that knows no running statistics keeps those of the run before: it mixes patterns by right.

    Args:
        module: What is run.
        path: Its path in the model.
        selects: What of every output is compared.
        before: The run before.
        exact: Whether the same run gives the same bits.
    """

    def __init__(
        self,
        module: nn.Module,
        path: str,
        selects: Sequence[Select],
        before: CallRecorder | None = None,
        *,
        exact: bool = False,
    ) -> None:
        super().__init__()
        self._same = _SAME_EXACTLY if exact else _SAME
        self.calls: list[Call] = []
        self.statistics: list[tuple[Tensor, Tensor]] = []
        self._selects, self._before = selects, before
        self._norms = 0
        self._made = TensorAnnotations()
        prefix = f"{path}." if path else ""
        self._paths = {id(m): (prefix + strip_wrappers(p)).rstrip(".") for p, m in module.named_modules()}
        self._frames: list[tuple[str, nn.Module]] = []
        self._handles: list[Any] = []

    def __enter__(self) -> CallRecorder:
        self._handles = [
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
        ]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()
        self._made.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func)).strip("_")
        output = self._batch_norm(func, args, kwargs) if func is F.batch_norm else func(*args, **kwargs)
        made = [tensor for tensor in tensors_in(output) if tensor.is_floating_point()][:2]
        if made and (made[0].dim() or name in _REDUCTIONS):
            self._note(name, args, kwargs, made)
        return output

    def place(self, which: int) -> Place | None:
        """The first call whose output differs in what a selection takes; None where no call does."""
        before = [] if self._before is None else self._before.calls
        if len(before) != len(self.calls):
            return None
        for index, call in enumerate(self.calls):
            for number, parts in enumerate(call.parts[which]):
                if parts and all(float(difference) > self._same for _, difference in parts):
                    return (self._reduction(index) if which == 0 else None) or self._place(which, index, number)
        return None

    def _note(self, name: str, args: Any, kwargs: Any, made: list[Tensor]) -> None:
        tensors = list(tensors_in((args, kwargs)))[:_MOST_GIVEN]
        given = tensors[0] if tensors else None
        shape = () if given is None else tuple(given.shape)
        sources = [self._made.read(tensor) for tensor in tensors] or [None]
        call = Call(name, tuple(self._frames), shape, _axis(name, given, args, kwargs), tuple(sources))
        index = len(self.calls)
        same = self._before is not None and index < len(self._before.calls)
        earlier = self._before.calls[index] if same and self._before is not None else None
        if earlier is not None and earlier.function != name:
            earlier = None
        for tensor in made:
            self._made.write(tensor, (index, len(call.shapes)))
            call.shapes.append(tuple(tensor.shape))
        for which, select in enumerate(self._selects):
            parts = [select(tensor.detach()) for tensor in made]
            if self._before is not None:
                old = [[] for _ in made] if earlier is None else earlier.parts[which]
                parts = [_differences(a, b) for a, b in zip(parts, old, strict=False)]
            call.parts.append(parts)
        if name in _REDUCTIONS and given is not None:
            over = _reduced_axes(given, args, kwargs)
            kept = [part for part in self._selects[0](given.detach()) if part[0] in over]
            before = [] if earlier is None else earlier.reduced
            call.reduced = kept if self._before is None else _differences(kept, before)
        self.calls.append(call)

    def _batch_norm(self, func: Any, args: Any, kwargs: Any) -> Any:
        given = losses.arguments(func, args, kwargs)
        if not given.get("training"):
            return func(*args, **kwargs)
        if self._before is not None and self._norms < len(self._before.statistics):
            mean, variance = self._before.statistics[self._norms]
            self._norms += 1
            fixed = {**given, "running_mean": mean, "running_var": variance, "training": False}
            return func(**fixed)
        x = given["input"].detach()
        axes = [axis for axis in range(x.dim()) if axis != 1]
        variance, mean = torch.var_mean(x, axes, correction=0)
        self.statistics.append((mean, variance))
        return func(*args, **kwargs)

    def _reduction(self, index: int) -> Place | None:
        """The mean or sum over the patterns that a call is given, or is itself."""
        waiting = [index]
        for each in waiting:
            call = self.calls[each]
            axis = next((axis for axis, difference in call.reduced if float(difference) <= self._same), None)
            if axis is not None:
                return self._at(call, "reduction", axis, None, call.shapes[0], axis)
            if each == index or not any(call.parts[0]):
                waiting += [source[0] for source in call.sources if source is not None and source[0] not in waiting]
        return None

    def _place(self, which: int, index: int, number: int) -> Place:
        call = self.calls[index]
        axis = next((axis for axis, _ in call.parts[which][number]), None)
        before = None
        if call.sources[0] is not None:
            parts = self.calls[call.sources[0][0]].parts[which][call.sources[0][1]]
            before = next((axis for axis, difference in parts if float(difference) <= self._same), None)
        return self._at(call, _KINDS.get(call.function, "other"), before, axis, call.shapes[number], call.axis)

    def _at(
        self, call: Call, kind: Kind, before: int | None, axis: int | None, made: tuple[int, ...], over: int | None
    ) -> Place:
        own = next((f for f in call.frames[::-1] if isinstance(f[1], (nn.MultiheadAttention, nn.RNNBase))), None)
        if own is not None:
            kind = "attention" if isinstance(own[1], nn.MultiheadAttention) else "recurrence"
        around = next((module for _, module in call.frames[::-1] if isinstance(module, _AROUND)), None)
        path, module = own or (call.frames[-1] if call.frames else ("", nn.Module()))
        leaf = own is not None or next(module.children(), None) is None
        return Place(
            layer=path if leaf and path else f"{path}.{call.function}".lstrip("."),
            function=call.function,
            kind=kind,
            module=_class(module) if leaf else "",
            inside="" if around is None else _class(around),
            input_shape=call.shape,
            output_shape=made,
            input_axis=before,
            output_axis=axis,
            dim=over,
            batch_first=getattr(module, "batch_first", None) if own is not None else None,
            bidirectional=bool(getattr(module, "bidirectional", False)),
        )

    def _enter_module(self, module: nn.Module, args: Any) -> None:
        self._frames.append((self._paths.get(id(module), ""), module))

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._frames:
            self._frames.pop()


def _differences(new: list[tuple[int, Tensor]], old: list[tuple[int, Tensor]]) -> list[tuple[int, Tensor]]:
    found = []
    for (axis, one), (other_axis, other) in zip(new, old, strict=False):
        if axis == other_axis and one.shape == other.shape and one.numel():
            size = other.float().abs().amax() + torch.finfo(torch.float32).tiny
            found.append((axis, (one.float() - other.float()).abs().amax() / size))
    return found


def _axis(name: str, given: Tensor | None, args: Any, kwargs: Any) -> int | None:
    """The dimension that a call runs over, counted from the front."""
    if given is None or not given.dim() or _KINDS.get(name) not in ("softmax", "cumulation"):
        return None
    axis = softmax_axis(given, args, kwargs)
    if name == "normalize":
        axis = kwargs.get("dim", args[2] if len(args) > 2 else 1)
    return axis % given.dim() if isinstance(axis, int) else None


def _reduced_axes(given: Tensor, args: Any, kwargs: Any) -> set[int]:
    """The dimensions that a mean or a sum runs over: without any, all."""
    over = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    if over is None or over == ():
        return set(range(given.dim()))
    dims = over if isinstance(over, (tuple, list)) else (over,)
    return {dim % max(given.dim(), 1) for dim in dims if type(dim) is int}


def _class(module: nn.Module) -> str:
    name = type(module).__name__
    return f"nn.{name}" if type(module).__module__.startswith("torch.nn.") else name
