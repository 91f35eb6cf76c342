"""What every network of the clinic has: hidden places with known names, and plugs where a fault can be put in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.nn import ShiftedReLU

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "selu": nn.SELU,
    "leaky_relu": lambda: nn.LeakyReLU(0.01),
    "elu": nn.ELU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "softplus": nn.Softplus,
    "srelu": ShiftedReLU,
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": lambda x: x.tanh(),
    "sigmoid": lambda x: x.sigmoid(),
    "gelu": F.gelu,
    "silu": F.silu,
    "selu": F.selu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
}


@dataclasses.dataclass(frozen=True)
class Place:
    """One hidden layer: the paths of its modules in the network.

    Args:
        weighted: The module with the weights.
        activation: The module of the activation; empty where it is called as a function.
        plug: An identity behind the activation, where a fault can be put in; empty where there is none.
        norm: The normalisation of this layer, if any.
        before: An identity before the normalisation.
    """

    weighted: str
    activation: str = ""
    plug: str = ""
    norm: str = ""
    before: str = ""


class Network(nn.Module):
    """A network that tells its hidden places in the order of execution; ``out`` is a plug behind the output layer.

    ``crossing`` is the path of the module in which the positions of a pattern meet, if there is one.
    """

    places: tuple[Place, ...] = ()
    output: str = "head"
    crossing: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Identity()

    def forget(self, place: int) -> None:
        """Leave out the activation of a place."""
        self.put(self.places[place].activation, nn.Identity())

    def put(self, path: str, module: nn.Module) -> None:
        """Put a module at a path."""
        if not path:
            raise ValueError(f"{type(self).__name__} has no such place")
        self.set_submodule(path, module)


class Block(nn.Module):
    """Weights, normalisation, activation."""

    def __init__(self, weighted: nn.Module, activation: str, norm: nn.Module | None = None, after: bool = False):
        super().__init__()
        self.weighted, self.after = weighted, after
        self.before, self.norm = nn.Identity(), norm or nn.Identity()
        self.activation, self.plug = ACTIVATIONS[activation](), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.weighted(x)
        if self.after:
            return self.norm(self.before(self.plug(self.activation(x))))
        return self.plug(self.activation(self.norm(self.before(x))))


def block_place(path: str, norm: bool = False) -> Place:
    """The place of a Block at a path."""
    parts = {name: f"{path}.{name}" for name in ("weighted", "activation", "plug")}
    return Place(**parts, norm=f"{path}.norm" if norm else "", before=f"{path}.before" if norm else "")
