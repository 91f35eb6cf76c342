"""initialize: starts a whole network, each layer by the activation that follows it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from lightning_tricks.activations import BoundActivation
from lightning_tricks.init import schemes
from lightning_tricks.init.fans import Fans, WeightBlock, weight_blocks
from lightning_tricks.init.lsuv import lsuv_
from lightning_tricks.init.moments import gain, one_step_gain
from lightning_tricks.init.orthogonal import delta_problem, fill_delta, fill_orthogonal, isometry
from lightning_tricks.init.report import NoEffectWarning, Report
from lightning_tricks.init.weights import NotWritableError, identity_of, is_frozen, write_weight, zero_biases
from lightning_tricks.model.arguments import check_module, unknown_name
from lightning_tricks.model.batches import Forward
from lightning_tricks.model.execution_order import ExecutionOrder, execution_order
from lightning_tricks.model.layers import Model, is_weighted

__all__ = ["SCHEMES", "initialize"]


@dataclass(frozen=True)
class Start:
    """How one weight begins: its name in the report, with the numbers of ``variance_scaling_`` where it takes them."""

    name: str
    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"

    def fill(self, tensor: Tensor, fans: Fans, layer: nn.Module, generator: Generator | None) -> tuple[float, float]:
        """Fills the tensor, rows of a layer's weight; returns the fan that counted and the std asked for."""
        if self.name == "orthogonal":
            fill_orthogonal(tensor, layer, 1.0, generator)
        elif self.name == "delta_orthogonal":
            fill_delta(tensor, layer, 1.0, generator)
        else:
            fan = schemes.terms(tensor, self.mode, fans)
            schemes.variance_scaling_(tensor, self.scale, self.mode, self.distribution, fan=fans, generator=generator)
            return fan, (self.scale / fan) ** 0.5
        return fans.fan_in, float(tensor.float().square().mean().sqrt())


_NAMED = {
    start.name: start
    for start in (
        Start("lecun_normal"),
        Start("lecun_uniform", distribution="uniform"),
        Start("he_normal", 2.0),
        Start("he_uniform", 2.0, distribution="uniform"),
        Start("glorot_normal", mode="fan_avg"),
        Start("glorot_uniform", mode="fan_avg", distribution="uniform"),
        Start("orthogonal"),
        Start("delta_orthogonal"),
    )
}
SCHEMES = ("auto", "lsuv", *_NAMED)


def initialize(
    model: Model,
    scheme: str = "auto",
    batch: Any = None,
    *,
    forward: Forward | None = None,
    report: Report | None = None,
    generator: Generator | None = None,
) -> Model:
    """Initialises every weighted layer of a model in place: weights by the scheme, biases 0.

    ``"auto"`` follows the data from each layer to the activation it meets (through normalisation, dropout, pooling and
    additions) and takes a truncated normal of variance gain^2 / fan_in with that activation's ``gain``: LeCun's for
    SELU, recurrent gates and no activation, He's for ReLU. Bounded activations (tanh, the logistic), which have no
    gain that keeps the second moment for good, get ``one_step_gain``; recurrent weights are orthogonal, gate by gate.

    Fans are right for groups, transposed convolutions, fused q, k, v and recurrent gates; parametrized weights are
    written through their parametrization; a tied tensor is initialised once, for the use with the largest fan_in.
    Left alone, and listed in the report with the reason: frozen parameters, normalisation layers and other modules
    without a rule, weights that a parametrization or hook overrules, and with ``"auto"`` layers that never run.
    On the meta device the scheme is kept in each layer's ``reset_parameters`` and acts when that runs after
    ``to_empty``.

    Args:
        model: Any module.
        scheme: ``"auto"``, ``"lsuv"`` (needs a batch), ``"lecun_normal"``, ``"lecun_uniform"``, ``"he_normal"``,
            ``"he_uniform"``, ``"glorot_normal"``, ``"glorot_uniform"``, ``"orthogonal"`` or ``"delta_orthogonal"``.
        batch: What the model takes; of a tuple or list the first element. ``"auto"`` runs it once to see the order of
            execution; without it the order is read from the model's graph.
        forward: ``forward(model, batch)`` where that is not how the model is called.
        report: Collects, per weight: fan, standard deviation asked for and got; and what was left, with the reason.
        generator: The source of random numbers; None: torch's global one.

    Returns:
        The model.

    Raises:
        ValueError: An unknown scheme, ``"lsuv"`` without a batch, a lazy layer that has not seen a batch (named), or
            whatever the forward pass raises. After an error the weights are as before.

    Warns:
        NoEffectWarning: Nothing was initialised.

    >>> net = nn.Sequential(nn.Linear(256, 256), nn.SELU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
    >>> report = Report()
    >>> _ = initialize(net, report=report)
    >>> [(entry.layer, entry.what) for entry in report.changed]
    [('0', 'lecun_normal (selu)'), ('2', 'he_normal (relu)'), ('4', 'lecun_normal (linear)')]
    """
    check_module(model)
    check_scheme(scheme, batch)
    report = Report() if report is None else report
    if scheme == "lsuv":
        return lsuv_(model, batch, forward=forward, report=report)

    layers = {module: name for name, module in model.named_modules() if is_weighted(module)}
    blocks = {module: weight_blocks(module, name) for module, name in layers.items()}
    order = execution_order(model, batch, forward) if scheme == "auto" and layers else None
    done = len(report.changed)
    unexpected: list[str] = []
    for module, name, parameter, reason in _parameters(layers, blocks, order):
        parts = [block for block in blocks[module] if block.parameter == parameter]
        starts = [_start(scheme, block, module, order) for block in parts]
        if not reason:
            reason = _shape_problem(starts, getattr(module, parameter), module)
        if not reason:
            try:
                _initialise(module, name, parameter, parts, starts, report, generator)
                continue
            except NotWritableError as error:
                reason = str(error)
        report.leave(name, reason)
        if "tied" not in reason and "frozen" not in reason:
            unexpected.append(f"{name} ({reason})")
    _finish(model, layers, report, done, unexpected)
    return model


def check_scheme(scheme: str, batch: Any) -> None:
    """Raises ValueError for an unknown scheme, and for ``"lsuv"`` without a batch."""
    if not isinstance(scheme, str):
        raise TypeError(f"scheme must be a name such as 'auto', got {type(scheme).__name__}: a batch goes to batch=")
    if scheme not in SCHEMES:
        raise ValueError(unknown_name("scheme", scheme, SCHEMES))
    if scheme == "lsuv" and batch is None:
        raise ValueError("scheme 'lsuv' scales each layer by what it puts out: pass batch=")


def _parameters(
    layers: dict[nn.Module, str], blocks: dict[nn.Module, list[WeightBlock]], order: ExecutionOrder | None
) -> list[tuple[nn.Module, str, str, str]]:
    """(module, name, parameter, reason to leave it or "") for every weight; of tied ones the largest fan_in counts."""
    uses: dict[Tensor, list[tuple[float, nn.Module, str]]] = {}
    for module in layers:
        for parameter in dict.fromkeys(block.parameter for block in blocks[module]):
            fan_in = max(block.fans.fan_in for block in blocks[module] if block.parameter == parameter)
            uses.setdefault(identity_of(module, parameter), []).append((fan_in, module, parameter))
    found = []
    for tied in uses.values():
        _, owner, _ = max(tied, key=lambda use: use[0])
        for _, module, parameter in tied:
            reason = ""
            if module is not owner:
                reason = f"{parameter} is tied to layer {layers[owner]!r}, where it is initialised"
            elif is_frozen(module, parameter):
                reason = f"{parameter} is frozen (requires_grad=False)"
            elif order is not None and module not in order.activations:
                reason = "it never runs, so nothing tells which activation follows it"
            found.append((module, layers[module], parameter, reason))
    return found


def _start(scheme: str, block: WeightBlock, module: nn.Module, order: ExecutionOrder | None) -> Start:
    if order is None:
        return _NAMED[scheme]
    if block.parameter.startswith("weight_hh"):
        return _NAMED["orthogonal"]
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return _NAMED["lecun_normal"]
    activation = order.activations.get(module)
    if activation is None:
        return Start("lecun_normal (linear)")
    if any(isinstance(value, Tensor) for _, value in activation.parameters):  # PReLU, whose channels may differ
        slope = next(value.detach().float() for _, value in activation.parameters if isinstance(value, Tensor))
        scale = 2.0 / (1.0 + float(slope.square().mean()))
        return Start(f"truncated normal, gain {scale**0.5:.4g} ({activation.name})", scale)
    return _start_before(activation)


@functools.lru_cache(maxsize=256)
def _start_before(activation: BoundActivation) -> Start:
    """A truncated normal of variance gain^2 / fan_in."""
    try:
        factor, kind = gain(activation), "gain"
    except ValueError:  # bounded: no gain keeps the second moment for good
        factor, kind = one_step_gain(activation), "one-step gain"
    scale = factor**2
    for name, known in (("lecun_normal", 1.0), ("he_normal", 2.0)):
        if abs(scale - known) < 1e-9:
            return Start(f"{name} ({activation.name})", known)
    return Start(f"truncated normal, {kind} {factor:.4g} ({activation.name})", scale)


def _shape_problem(starts: list[Start], weight: Tensor, module: nn.Module) -> str:
    if starts[0].name == "delta_orthogonal" and delta_problem(weight, module):
        return f"delta_orthogonal does not fit a weight of shape {tuple(weight.shape)}"
    return ""


def _initialise(
    module: nn.Module,
    name: str,
    parameter: str,
    parts: list[WeightBlock],
    starts: list[Start],
    report: Report,
    generator: Generator | None,
) -> None:
    if getattr(module, parameter).is_meta:
        _defer(module, parameter, parts, starts)
        report.change(name, f"{starts[0].name}, when reset_parameters runs: on the meta device")
        return
    for part, values in zip(parts, _fill(module, parameter, parts, starts, generator), strict=True):
        label = part.label if parameter == "weight" else f"{parameter} {part.label}".strip()
        what = starts[parts.index(part)].name + (f", {label}" if label else "")
        report.change(name, what, values)


@torch.no_grad()
def _fill(
    module: nn.Module, parameter: str, parts: list[WeightBlock], starts: list[Start], generator: Generator | None = None
) -> list[dict[str, float]]:
    weight = getattr(module, parameter)
    value = torch.empty_like(weight)
    rows = []
    for part, start in zip(parts, starts, strict=True):
        own = value[part.rows]
        fan, asked = start.fill(own, part.fans, module, generator)
        lengths = isometry(start.name, own, module) if start.name in ("orthogonal", "delta_orthogonal") else {}
        got = float(own.float().std(unbiased=False))
        rows.append({"fan": fan, "std asked": asked, "std got": got, **lengths})
    padding = getattr(module, "padding_idx", None)
    if padding is not None:
        value[padding] = 0.0
    write_weight(module, parameter, value)
    zero_biases(module)
    return rows


def _defer(module: nn.Module, parameter: str, parts: list[WeightBlock], starts: list[Start]) -> None:
    """Hangs the start onto the layer's own reset_parameters; a partial, so that the model can be copied and pickled."""
    first = module.__dict__.get("reset_parameters")
    if not isinstance(first, functools.partial) or first.func is not _reset:
        first = functools.partial(_reset, module, ())
    plan = tuple(step for step in first.args[1] if step[0] != parameter)
    reset: Callable[[], None] = functools.partial(_reset, module, (*plan, (parameter, parts, starts)))
    module.reset_parameters = reset  # type: ignore[assignment]


def _reset(module: nn.Module, plan: tuple[tuple[str, list[WeightBlock], list[Start]], ...]) -> None:
    for parameter, parts, starts in plan:
        if not getattr(module, parameter).is_meta:
            _fill(module, parameter, parts, starts)


def _finish(model: nn.Module, layers: dict[nn.Module, str], report: Report, done: int, unexpected: list[str]) -> None:
    for name, module in model.named_modules():
        own = [key for key, _ in module.named_parameters(recurse=False)]
        if own and module not in layers and "parametrizations" not in name.split("."):
            report.leave(name, f"no rule for {type(module).__name__} ({', '.join(own)})")
    if unexpected:
        warnings.warn(f"left as they were: {'; '.join(unexpected)}", stacklevel=3)
    elif len(report.changed) == done:
        what = f"all of {', '.join(layers.values())} is frozen" if layers else "it has no layer with weights"
        warnings.warn(f"initialize changed nothing in {type(model).__name__}: {what}", NoEffectWarning, stacklevel=3)
