"""Arms that rebuild: other weights at the start, other activations, batch norm added or taken away."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lightning_tricks import init, surgery
from lightning_tricks.activations import Activation, activation_of, by_name
from lightning_tricks.experiments.arms.arm import Arm, Setting, of_model
from lightning_tricks.experiments.preflight.patterns import NotAskedError
from lightning_tricks.experiments.training.training import Training
from lightning_tricks.model.layers import is_batch_norm, is_normalization, is_weighted

GROUPS = 32  # of GroupNorm, as its paper takes (Wu & He 2018); fewer where channels do not divide
IN_GROUP = 4  # channels at least


@contextlib.contextmanager
def asked() -> Iterator[None]:
    """Surgery that changes nothing, or cannot, is no arm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", surgery.NoEffectWarning)
        try:
            yield
        except NotAskedError:
            raise
        except Exception as error:
            raise NotAskedError(f"{type(error).__name__}: {error}") from error


def draw_anew(model: nn.Module) -> None:
    """Weights as each layer draws them when it is made, and statistics of none; frozen layers stay."""
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(p.requires_grad for p in own):
            continue
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
        if is_batch_norm(module) and module.track_running_stats:
            module.reset_running_stats()


def is_finite(model: nn.Module) -> bool:
    return all(bool(t.isfinite().all()) for t in (*model.parameters(), *model.buffers()) if t.is_floating_point())


def _initialize(model: nn.Module, setting: Setting) -> None:
    with asked():
        init.initialize(model, "auto", 0, forward=setting.places.forward)
        _reset_norms(model)


def _lsuv(model: nn.Module, setting: Setting) -> None:
    if setting.ruined or not is_finite(model):
        draw_anew(model)
    with asked():
        init.lsuv_(model, 0, forward=setting.places.forward)
        _reset_norms(model)


@torch.no_grad()
def _reset_norms(model: nn.Module) -> None:
    """Scale 1 and shift 0, no statistics yet."""
    for module in model.modules():
        if is_normalization(module):
            for name, value in (("weight", 1.0), ("bias", 0.0)):
                parameter = getattr(module, name, None)
                if isinstance(parameter, torch.Tensor):
                    parameter.fill_(value)
        if is_batch_norm(module) and module.track_running_stats:
            module.reset_running_stats()


@torch.no_grad()
def _reset_biases(model: nn.Module, setting: Setting) -> None:
    for module in model.modules():
        bias = getattr(module, "bias", None)
        if (is_weighted(module) or is_normalization(module)) and isinstance(bias, torch.Tensor):
            bias.zero_()


def _has_biases(training: Training, setting: Setting) -> bool:
    """Any that torch would not draw: torch's are within 1 / sqrt(fan_in), of norms 0."""
    for module in training.module.modules():
        bias = getattr(module, "bias", None)
        if not isinstance(bias, torch.Tensor):
            continue
        if is_normalization(module):
            if bool(bias.abs().max() > 1.0):
                return True
        elif is_weighted(module):
            weight = getattr(module, "weight", None)
            fan_in = weight[0].numel() if isinstance(weight, torch.Tensor) and weight.dim() > 1 else 1
            if bool(bias.abs().max() > 2.0 / math.sqrt(fan_in)):
                return True
    return False


def _begin(model: nn.Module, setting: Setting) -> None:
    if setting.ruined or not is_finite(model):
        init.initialize(model, "auto", 0, forward=setting.places.forward)
        _reset_norms(model)


def _swap(model: nn.Module, setting: Setting, old: Any, new: str) -> None:
    """Other units in all hidden layers; an activation that ends the network stays."""
    made, last = by_name(new).module, setting.places.last_activation
    assert made is not None
    changed = surgery.Report()

    def policy(name: str, module: nn.Module) -> nn.Module | None:
        entry = _entry(module)
        wanted = entry is not None and entry.module is not None and old(entry) and name != last
        return made() if wanted else None

    surgery.replace_modules(model, policy, changed)
    if not changed.changed:
        raise NotAskedError("it has no such activation as a module")


def _self_normalize(model: nn.Module, setting: Setting) -> None:
    with asked():
        _swap(model, setting, lambda entry: entry.name != "selu", "selu")
        init.initialize(model, "auto", 0, forward=setting.places.forward)


def _relu(model: nn.Module, setting: Setting) -> None:
    with asked():
        _swap(model, setting, lambda entry: not entry.rectifier, "relu")
        init.initialize(model, "auto", 0, forward=setting.places.forward)


def _leaky(model: nn.Module, setting: Setting) -> None:
    with asked():
        _swap(model, setting, lambda entry: entry.name == "relu", "leaky_relu")
        _begin(model, setting)


def _entry(module: nn.Module) -> Activation | None:
    found = activation_of(module)
    return None if found is None else found.activation


def _hidden(wanted: Any) -> Any:
    """The names of such activations that do not end the network."""

    def names(training: Training, setting: Setting) -> list[str]:
        last = setting.places.last_activation
        found = ((name, _entry(module)) for name, module in training.module.named_modules())
        return sorted({each.name for name, each in found if each is not None and name != last and wanted(each)})

    return names


def _swapping(name: str, text: str, on_model: Any, wanted: Any) -> Arm:
    """Other activations in place of the hidden ones that are wanted."""
    names = _hidden(wanted)

    def concerns(training: Training, setting: Setting) -> bool:
        return bool(names(training, setting))

    return of_model(name, "rebuild", "swap_activation", text, on_model, concerns, swapped=names)


def _insert_batch_norm(model: nn.Module, setting: Setting) -> None:
    with asked():
        surgery.insert_batch_norm(model, 0, forward=setting.places.forward)
        _begin(model, setting)


def _group_norm(model: nn.Module, setting: Setting) -> None:
    def policy(name: str, module: nn.Module) -> nn.Module | None:
        if not is_batch_norm(module):
            return None
        channels = module.num_features
        groups = max(g for g in range(1, GROUPS + 1) if channels % g == 0 and (g == 1 or channels // g >= IN_GROUP))
        made = nn.GroupNorm(groups, channels, module.eps, module.affine)
        with torch.no_grad():
            for key in ("weight", "bias") if module.affine else ():
                getattr(made, key).copy_(getattr(module, key))
        return made

    with asked():
        surgery.replace_modules(model, policy)


def _has_batch_norm(training: Training, setting: Setting) -> bool:
    return any(map(is_batch_norm, training.module.modules()))


def _remove_last_activation(model: nn.Module, setting: Setting) -> None:
    path = setting.places.last_activation
    with asked():
        surgery.replace_modules(model, lambda name, module: nn.Identity() if name == path else None)


def _ends_in_activation(training: Training, setting: Setting) -> bool:
    return setting.places.last_activation is not None


def _is_rebuilt(training: Training, setting: Setting) -> bool:
    return any(map(is_weighted, training.module.modules()))


DRAW_ANEW = of_model(
    "draw_anew",
    "rebuild",
    "initialize",
    "start anew: what the weights have become does not learn",
    lambda model, setting: draw_anew(model),
)

NETWORK = (
    of_model(
        "no_last_activation",
        "undo",
        "remove_output_activation",
        "leave out the activation that ends the network",
        _remove_last_activation,
        _ends_in_activation,
        layer=lambda setting: setting.places.last_activation,
    ),
    of_model(
        "reset_biases",
        "undo",
        "reset_bias",
        "begin with biases of 0",
        _reset_biases,
        _has_biases,
    ),
    of_model(
        "group_norm",
        "undo",
        "replace_normalization",
        "normalise within each pattern: nn.GroupNorm in place of batch norm",
        _group_norm,
        _has_batch_norm,
    ),
    of_model(
        "initialize",
        "rebuild",
        "initialize",
        "start every layer with weights that fit, and biases 0: lt.init.initialize(model)",
        _initialize,
        _is_rebuilt,
    ),
    of_model(
        "lsuv",
        "rebuild",
        "initialize",
        "scale every layer's weights by what it puts out: lt.init.lsuv_(model, x)",
        _lsuv,
        _is_rebuilt,
    ),
    _swapping(
        "relu",
        "use rectifiers: lt.surgery.swap_activation(model, {old}, 'relu'), and lt.init.initialize(model)",
        _relu,
        lambda entry: not entry.rectifier,
    ),
    _swapping(
        "leaky_relu",
        "let no unit die: lt.surgery.swap_activation(model, 'relu', 'leaky_relu')",
        _leaky,
        lambda entry: entry.name == "relu",
    ),
    _swapping(
        "self_normalize",
        "use self-normalising units: lt.surgery.self_normalize(model, old={old})",
        _self_normalize,
        lambda entry: entry.name != "selu",
    ),
    of_model(
        "insert_batch_norm",
        "rebuild",
        "insert_batch_norm",
        "put batch normalisation before the activations: lt.surgery.insert_batch_norm(model)",
        _insert_batch_norm,
        lambda training, setting: not any(map(is_normalization, training.module.modules())),
    ),
)
