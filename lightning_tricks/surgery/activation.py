"""swap_activation and self_normalize: other units for a network that exists."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from torch import Generator, nn

from lightning_tricks._compat.torch_modules import DropoutNd
from lightning_tricks.activations import activation_of, by_name, entries
from lightning_tricks.init.fans import weight_blocks
from lightning_tricks.init.network import check_scheme, initialize
from lightning_tricks.init.report import NoEffectWarning, Report
from lightning_tricks.model.arguments import check_module
from lightning_tricks.model.batches import Forward
from lightning_tricks.model.execution_order import execution_order, functional_activations
from lightning_tricks.model.layers import Model, is_batch_norm, is_weighted
from lightning_tricks.nn.dropout import AlphaDropout, FeatureAlphaDropout, matched_p
from lightning_tricks.surgery.replace import replace_modules

__all__ = ["self_normalize", "swap_activation"]

RECTIFIERS = tuple(entry.name for entry in entries() if entry.rectifier)
Old = str | type[nn.Module] | Iterable["str | type[nn.Module]"]
New = str | nn.Module | Callable[[], nn.Module]


def swap_activation(model: Model, old: Old, new: New, *, report: Report | None = None) -> Model:
    """Replaces every activation module of one kind by another, in place.

    Activations that a forward calls as functions (``F.relu``) cannot be replaced; where the model's graph can be read
    they are listed in the report and warned about.

    Args:
        model: Any module; if it is itself such an activation the new one is returned.
        old: A registry name (``"relu"``), a module class, or several of them.
        new: A registry name, a module (each place gets a copy), or a class or function that makes one.
        report: Collects what was changed, and what was left and why.

    Returns:
        The model.

    Raises:
        ValueError: An unknown name, or a name that has no module.

    Warns:
        NoEffectWarning: The model has no such activation module.

    >>> swap_activation(nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True)), "relu", "gelu")
    Sequential(
      (0): Linear(in_features=2, out_features=2, bias=True)
      (1): GELU(approximate='none')
    )
    """
    check_module(model)
    report = Report() if report is None else report
    matches, wanted = _matcher(old)
    make = _maker(new)
    before = len(report.changed)
    model = replace_modules(model, lambda name, module: make(module) if matches(module) else None, report)
    functional = _leave_functional(model, wanted, report)
    if len(report.changed) == before and not functional:
        warnings.warn(
            f"{type(model).__name__} has no {' or '.join(sorted(wanted))} module to replace",
            NoEffectWarning,
            stacklevel=2,
        )
    return model


def self_normalize(
    model: Model,
    *,
    old: Old = RECTIFIERS,
    remove_batch_norm: bool = False,
    scheme: str | None = "auto",
    batch: Any = None,
    forward: Forward | None = None,
    report: Report | None = None,
    generator: Generator | None = None,
) -> Model:
    """Turns a rectifier network into a self-normalising one, in place (Klambauer et al. 2017).

    Activations become SELU. Dropout that follows one becomes alpha dropout of the p that is as noisy (``matched_p``:
    ordinary dropout of 0.18 becomes 0.05). The weights are initialised anew, LeCun's where SELU follows, so what the
    model has learned is lost. Feed the result standardised input (``Standardize``).

    Args:
        model: Any module with activation modules.
        old: What becomes SELU: registry names or module classes; by default all rectifiers.
        remove_batch_norm: Also replace batch norm, which SELU makes needless, by ``nn.Identity``. No module works in
            place then: what it would overwrite may be needed for the gradient of the activation before the batch norm.
        scheme: For ``initialize``; None keeps the weights.
        batch: For ``initialize``: shows the order of execution.
        forward: ``forward(model, batch)`` where that is not how the model is called.
        report: Collects what was changed, and what was left and why.
        generator: The source of random numbers for the weights.

    Returns:
        The model.

    Raises:
        ValueError: As ``initialize`` and ``swap_activation``; the model is then as before.

    Warns:
        NoEffectWarning: The model has no such activation module; it is then left alone altogether.

    >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.18), nn.Linear(8, 1))
    >>> self_normalize(net)
    Sequential(
      (0): Linear(in_features=8, out_features=8, bias=True)
      (1): SELU()
      (2): AlphaDropout(p=0.05093)
      (3): Linear(in_features=8, out_features=1, bias=True)
    )
    """
    check_module(model)
    report = Report() if report is None else report
    matches, wanted = _matcher(old)
    if not any(matches(module) for module in model.modules()):
        if not _leave_functional(model, wanted, report):
            what = " or ".join(sorted(wanted))
            warnings.warn(f"{type(model).__name__} has no {what} module to replace", NoEffectWarning, stacklevel=2)
        return model
    if scheme is not None:  # what can go wrong has to go wrong before the first change
        check_scheme(scheme, batch)
        for name, module in model.named_modules():
            if is_weighted(module):
                weight_blocks(module, name)
        if batch is not None:
            execution_order(model, batch, forward)
    make = _maker("selu")
    after_activation = _dropout_after(model, matches)

    def policy(name: str, module: nn.Module) -> nn.Module | None:
        if matches(module):
            return make(module)
        if remove_batch_norm and is_batch_norm(module):
            return nn.Identity()
        if module in after_activation:
            assert isinstance(module, DropoutNd)
            kind = AlphaDropout if isinstance(module, nn.Dropout) else FeatureAlphaDropout
            return kind(matched_p(module.p)) if module.p < 1.0 else None
        return None

    had_batch_norm = any(map(is_batch_norm, model.modules()))
    model = replace_modules(model, policy, report)
    for name, module in model.named_modules():
        if remove_batch_norm and had_batch_norm and getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010  (nn.Module types its attributes as tensors)
        if isinstance(module, (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)):
            report.leave(name, f"{type(module).__name__}(p={module.p}) does not follow an activation that was replaced")
    _leave_functional(model, wanted, report)
    if scheme is not None:
        initialize(model, scheme, batch, forward=forward, report=report, generator=generator)
    return model


def _matcher(old: Old) -> tuple[Callable[[nn.Module], bool], set[str]]:
    """Whether a module is one of the old activations, and what to call them."""
    kinds = [old] if isinstance(old, (str, type)) else list(old)
    names = {by_name(kind).name for kind in kinds if isinstance(kind, str)}
    classes = tuple(kind for kind in kinds if not isinstance(kind, str))

    def matches(module: nn.Module) -> bool:
        known = activation_of(module)
        return isinstance(module, classes) or (known is not None and known.name in names)

    return matches, names | {cls.__name__ for cls in classes}


def _maker(new: New) -> Callable[[nn.Module], nn.Module]:
    """What makes the new activation for an old one; in-place work stays in place where the new one can."""
    factory: Callable[[], nn.Module]
    if isinstance(new, nn.Module):
        return lambda old: copy.deepcopy(new)
    if isinstance(new, str):
        module = by_name(new).module
        if module is None:
            raise ValueError(f"activation {new!r} has no module; pass a module or a class")
        factory = module
    else:
        factory = new

    def make(old: nn.Module) -> nn.Module:
        made = factory()
        if getattr(old, "inplace", False) and hasattr(made, "inplace"):
            setattr(made, "inplace", True)  # noqa: B010  (nn.Module types its attributes as tensors)
        return made

    return make


def _dropout_after(model: nn.Module, matches: Callable[[nn.Module], bool]) -> set[nn.Module]:
    """Dropout that comes next after a matching activation, but for layers that only normalise, pool or reshape.

    Dropout on other things (attention weights, embeddings) must stay: alpha dropout suits the output of SELU only.
    """
    found: set[nn.Module] = set()
    follows = False
    for module in model.modules():
        if next(module.children(), None) is not None or type(module).__module__.endswith(
            ("pooling", "flatten", "norm")
        ):
            continue
        if isinstance(module, DropoutNd):
            if follows and not isinstance(module, (nn.AlphaDropout, nn.FeatureAlphaDropout)):
                found.add(module)
        else:
            follows = matches(module)
    return found


def _leave_functional(model: nn.Module, wanted: set[str], report: Report) -> bool:
    """Reports and warns of activations of these kinds that a forward calls as functions."""
    functional = functional_activations(model)
    if functional is None:
        report.leave("", "its graph cannot be read, so functional activations (F.relu) were not looked for")
        return False
    modules = {entry.__name__ for name in wanted if (entry := _module_of(name)) is not None}
    left = [(path, name) for path, name in functional if name in wanted or _class_name(name) in wanted | modules]
    for path, name in left:
        report.leave(path, f"calls {name} as a function, which cannot be replaced; make it a module")
    if left:
        places = ", ".join(sorted({path or "the model's forward" for path, _ in left}))
        warnings.warn(f"activations called as functions stay as they are, in {places}", stacklevel=3)
    return bool(left)


def _module_of(name: str) -> type[nn.Module] | None:
    try:
        return by_name(name).module
    except ValueError:  # a class name, not a registry name
        return None


def _class_name(name: str) -> str:
    module = by_name(name).module
    return "" if module is None else module.__name__
