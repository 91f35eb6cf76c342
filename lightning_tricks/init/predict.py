"""predict: mean and variance of every layer's output from the weights alone, before anything runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_tricks._compat.messages import ShownAsText
from lightning_tricks._compat.torch_modules import ConvNd, ConvTransposeNd, DropoutNd
from lightning_tricks.activations import activation_of
from lightning_tricks.init.fans import fans, weight_of
from lightning_tricks.init.moments import Moments, moments, second_moment_slope, verdict
from lightning_tricks.init.quadrature import ActivationLike, scalar_function
from lightning_tricks.model.layers import RMS_NORMS, is_linear, is_mean_only, is_normalization

__all__ = ["LayerPrediction", "NetworkPrediction", "predict"]

Layer = ActivationLike

_MEANS = {
    "MARGINAL": "a deviation of the second moment stays as it is, neither a fault nor self-normalising; usual for ReLU",
    "UNSTABLE": "it grows from layer to layer: a little off in the first one is far off in a deep net without norms; "
    "of GELU by a tenth",
}


@dataclass(frozen=True)
class LayerPrediction:
    """What is expected at the output of one layer.

    Args:
        layer: Its name.
        kind: The class of the layer, or the name of the activation.
        mean: Over all elements of the output.
        variance: Over all elements of the output.
        slope: Of an activation: by which factor it and the weighted layer before it change a small relative deviation
            of the second moment, d log q' / d log q. None for other layers.
    """

    layer: str
    kind: str
    mean: float
    variance: float
    slope: float | None = None

    @property
    def second_moment(self) -> float:
        return self.variance + self.mean**2

    @property
    def verdict(self) -> str:
        """``"STABLE"``, ``"UNSTABLE"``, ``"MARGINAL"``, or ``""`` where nothing can be said.

        STABLE: a deviation of the second moment shrinks, the units normalise themselves. UNSTABLE: it grows. MARGINAL:
        it stays, as with units that have no scale of their own: ReLU with He's weights is so, and rightly.
        """
        return "" if self.slope is None else verdict(self.slope)


@dataclass(frozen=True)
class NetworkPrediction(ShownAsText):
    """The layers in order; printed as a table."""

    layers: tuple[LayerPrediction, ...]

    def __iter__(self) -> Iterator[LayerPrediction]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> LayerPrediction:
        return self.layers[index]

    def __str__(self) -> str:
        rows = [("layer", "kind", "mean", "variance", "slope", "")]
        for row in self.layers:
            slope = "" if row.slope is None else f"{row.slope:.4f}"
            rows.append((row.layer, row.kind, f"{row.mean:.4g}", f"{row.variance:.4g}", slope, row.verdict))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        found = {row.verdict for row in self.layers}
        return "\n".join([*lines, *(f"{verdict}: {said}" for verdict, said in _MEANS.items() if verdict in found)])


@torch.no_grad()
def predict(model: nn.Module | Iterable[Layer], mean: float = 0.0, variance: float = 1.0) -> NetworkPrediction:
    r"""Mean and variance of the output of every layer, computed from the weights; nothing is run.

    A weighted layer with weight sums omega_i and summed squares tau_i takes input of mean mu and variance nu to

    .. math:: E_i[\omega_i \mu + b_i],\quad E_i[\tau_i]\, \nu + \mathrm{Var}_i[\omega_i \mu + b_i]

    over all units i, and an activation takes a Gaussian of that mean and variance to what ``moments`` says (the mean
    field of Poole et al. 2016, eq. 3). Inputs count as independent: right for wide layers at the start of training.
    Convolutions count without padding, dropout as in training, normalisation layers give what their affine part says,
    and a fitted ``Standardize`` gives mean 0 and variance 1.

    Args:
        model: An ``nn.Sequential`` (nested, SELU blocks included), a module such as a LightningModule that holds its
            weights in one of these, or a list of modules and activations, which may be names or functions.
        mean: Mean over all elements of the input.
        variance: Variance over all elements of the input.

    Raises:
        ValueError: A layer whose effect is not known without data, or whose order is not known (any other module with
            children); the layer is named.

    >>> net = nn.Sequential(nn.Linear(400, 400, bias=False), nn.ReLU())
    >>> _ = nn.init.eye_(net[0].weight)
    >>> print(predict(net))
    layer  kind    mean    variance  slope
    0      Linear  0       1
    1      relu    0.3989  0.3408    1.0000  MARGINAL
    MARGINAL: a deviation of the second moment stays as it is, neither a fault nor self-normalising; usual for ReLU
    """
    now = Moments(float(mean), float(variance))
    passed: float | None = None  # d log(second moment) since the last activation; None before a weighted layer
    within: float | None = None  # right behind a weighted layer: the variance of a unit over patterns
    rows: list[LayerPrediction] = []
    for name, layer in _flatten(model):
        slope: float | None = None
        kind = type(layer).__name__
        if is_linear(layer):
            within = _weighted(name, layer, Moments(0.0, now.variance), biased=False).variance
            without_bias = _weighted(name, layer, now, biased=False)
            now = _weighted(name, layer, now)
            share = without_bias.second_moment / now.second_moment if now.second_moment > 0 else 0.0
            passed = share if passed is None else passed * share
        elif isinstance(layer, nn.Module) and is_mean_only(layer):
            now = _shifted(layer, Moments(0.0, now.variance if within is None else within))
            passed = now.variance / now.second_moment if now.second_moment > 0 else 0.0
        elif isinstance(layer, nn.Module) and is_normalization(layer):
            now, passed = _normalised(layer, now), 0.0
        elif isinstance(layer, nn.Module) and (effect := _effect(layer)) is not None:
            now = effect(now)
        else:
            now, slope, kind = _activate(name, layer, now, passed)
            passed = None
        if not is_linear(layer):
            within = None
        rows.append(LayerPrediction(name, kind, now.mean, now.variance, slope))
    return NetworkPrediction(tuple(rows))


def _flatten(model: nn.Module | Iterable[Layer], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    if isinstance(model, nn.Module) and (held := _held(model)):
        yield from _flatten(held[1], f"{prefix}.{held[0]}" if prefix else held[0])
        return
    if isinstance(model, nn.Module) and not isinstance(model, (nn.Sequential, nn.ModuleList)):
        items: list[tuple[str, Layer]] = [("", model)]
    elif isinstance(model, nn.Module):
        items = list(model.named_children())
    else:
        items = [(str(index), layer) for index, layer in enumerate(model)]
    for key, layer in items:
        name = f"{prefix}.{key}" if prefix and key else prefix or key
        if isinstance(layer, nn.Sequential) or getattr(layer, "runs_children_in_order", False):
            assert isinstance(layer, nn.Module)
            for child, part in layer.named_children():
                yield from _flatten(part, f"{name}.{child}" if name else child)
        else:
            yield name, layer


def _held(model: nn.Module) -> tuple[str, nn.Module] | None:
    """The one Sequential that holds all weights of a module, beside losses and metrics; None where it is otherwise."""
    if isinstance(model, (nn.Sequential, nn.ModuleList)) or list(model.parameters(recurse=False)):
        return None
    children = list(model.named_children())
    holders = [(name, child) for name, child in children if next(child.parameters(), None) is not None]
    others = [child for _, child in children if child not in [each for _, each in holders]]
    plain = len(holders) == 1 and isinstance(holders[0][1], nn.Sequential)
    return holders[0] if plain and not any(activation_of(child) is not None for child in others) else None


@torch.no_grad()
def _weighted(name: str, layer: nn.Linear | ConvNd, now: Moments, biased: bool = True) -> Moments:
    weight, bias = weight_of(layer, name).double(), layer.bias
    if isinstance(layer, ConvTransposeNd):
        # Which of its kernel's taps reach an output depends on the position: only the average is the same for all.
        terms = fans(layer).fan_in
        sums, squares = weight.new_zeros(1) + terms * weight.mean(), terms * weight.square().mean()
    else:
        sums, squares = weight.flatten(1).sum(1), weight.flatten(1).square().sum(1).mean()
    centres: Tensor = sums * now.mean
    if biased and bias is not None:
        centres = centres + bias.double()
    result = Moments(float(centres.mean()), float(squares * now.variance + centres.var(unbiased=False)))
    if not torch.isfinite(torch.tensor(result)).all():
        raise ValueError(f"layer {name!r} ({type(layer).__name__}) has weights that are not finite")
    return result


def _activate(name: str, layer: Layer, now: Moments, passed: float | None) -> tuple[Moments, float | None, str]:
    known = not isinstance(layer, nn.Module) or activation_of(layer) is not None or not list(layer.children())
    try:
        if not known or (isinstance(layer, nn.Module) and list(layer.parameters()) and activation_of(layer) is None):
            raise ValueError(
                "in which order its parts run, and what they do, shows only with data (lightning_tricks.summary(model, "
                "batch) predicts each of its layers from what comes in)"
            )
        function = scalar_function(layer)
    except (ValueError, TypeError, RuntimeError) as error:
        what = layer if isinstance(layer, str) else type(layer).__name__
        raise ValueError(
            f"cannot predict {f'layer {name!r}' if name else 'the model'} ({what}): {error}; give predict the layers "
            "in order, as a list of weighted layers, normalisation layers and activations"
        ) from error
    after = moments(function, now.mean, now.variance)
    slope = None
    if passed is not None and now.variance > 0 and after.second_moment > 0:
        grown = second_moment_slope(function, now.variance, now.mean)
        slope = passed * now.second_moment * grown / after.second_moment
    return after, slope, function.name


def _effect(layer: nn.Module) -> Callable[[Moments], Moments] | None:
    """What a layer that is neither weighted nor an activation does to mean and variance; None: unknown."""
    if isinstance(layer, (nn.Identity, nn.Flatten, nn.Unflatten, nn.AlphaDropout, nn.FeatureAlphaDropout)):
        return _unchanged
    if type(layer).__name__ in ("AlphaDropout", "FeatureAlphaDropout"):
        return _unchanged
    if isinstance(layer, DropoutNd):
        return functools.partial(_dropped, layer.p)
    if type(layer).__name__ == "Standardize":
        shift, scale = dict(layer.named_buffers())["mean"], dict(layer.named_buffers())["scale"]
        return _standardized if shift.any() or (scale != 1).any() else _unchanged
    return None


def _standardized(now: Moments) -> Moments:
    """Of the data that it was fitted to, whatever they are."""
    return Moments(0.0, 1.0)


def _unchanged(now: Moments) -> Moments:
    return now


def _dropped(p: float, now: Moments) -> Moments:
    return Moments(now.mean, now.second_moment / (1.0 - p) - now.mean**2)


def _normalised(layer: nn.Module, now: Moments) -> Moments:
    weight = getattr(layer, "weight", None)
    scale = 1.0 if weight is None else float(weight.double().square().mean())
    if isinstance(layer, RMS_NORMS):  # divided by the root of the second moment: what there was of a mean stays
        mean = now.mean / now.second_moment**0.5 if now.second_moment > 0 else 0.0
        mean *= 1.0 if weight is None else float(weight.double().mean())
        return Moments(mean, scale - mean**2)
    return _shifted(layer, Moments(0.0, scale))


def _shifted(layer: nn.Module, now: Moments) -> Moments:
    bias = getattr(layer, "bias", None)
    if bias is None:
        return now
    shift = bias.double()
    return Moments(now.mean + float(shift.mean()), now.variance + float(shift.var(unbiased=False)))
