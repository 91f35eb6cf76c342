"""Networks for tables: stacks of linear layers, plain, functional, residual, normalised, tied, gated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_tricks.nn import SELULinear

from .network import ACTIVATIONS, FUNCTIONS, Block, Network, Place, block_place

Norm = Callable[[int], nn.Module]


class Linear(Network):
    """Logistic or linear regression, on its own or behind a batch normalisation of the input."""

    def __init__(self, inputs: int, outputs: int, normalised: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs) if normalised else nn.Identity()
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.head(self.norm(x)))


class MLP(Network):
    """Blocks of linear layer, normalisation and activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        activation: str,
        widths: Sequence[int],
        norm: Norm | None = None,
        after: bool = False,
    ) -> None:
        super().__init__()
        sizes = [inputs, *widths]
        self.blocks = nn.Sequential(
            *(
                Block(nn.Linear(fan_in, width), activation, norm(width) if norm else None, after)
                for fan_in, width in zip(sizes, widths, strict=False)
            )
        )
        self.head = nn.Linear(sizes[-1], outputs)
        self.places = tuple(block_place(f"blocks.{k}", norm is not None) for k in range(len(widths)))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.head(self.blocks(x)))


class Sequence3(Network):
    """A plain nn.Sequential: three modules a layer, numbered."""

    def __init__(self, inputs: int, outputs: int, activation: str, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in, width in zip([inputs, *widths], widths, strict=False):
            layers += [nn.Linear(fan_in, width), ACTIVATIONS[activation](), nn.Identity()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
        self.output = f"layers.{len(layers)}"
        self.places = tuple(
            Place(f"layers.{k}", f"layers.{k + 1}", f"layers.{k + 2}") for k in range(0, len(layers), 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layers(x))


class Functional(Network):
    """Activations are called in the forward itself."""

    def __init__(self, inputs: int, outputs: int, activation: str, widths: Sequence[int]) -> None:
        super().__init__()
        for k, (fan_in, width) in enumerate(zip([inputs, *widths], widths, strict=False), 1):
            setattr(self, f"fc{k}", nn.Linear(fan_in, width))
            setattr(self, f"plug{k}", nn.Identity())
        self.fc_out = nn.Linear(widths[-1], outputs)
        self.output = "fc_out"
        self.functions = [FUNCTIONS[activation]] * len(widths)
        self.places = tuple(Place(f"fc{k}", plug=f"plug{k}") for k in range(1, len(widths) + 1))

    def forget(self, place: int) -> None:
        self.functions[place] = lambda x: x

    def forward(self, x: Tensor) -> Tensor:
        for k, function in enumerate(self.functions, 1):
            x = getattr(self, f"plug{k}")(function(getattr(self, f"fc{k}")(x)))
        return self.out(self.fc_out(x))


class ResidualMLP(Network):
    """A stem, and branches of two linear layers that are added to what came in."""

    def __init__(
        self, inputs: int, outputs: int, activation: str, width: int, branches: int, norm: Norm | None = None
    ) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.branches = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": norm(width) if norm else nn.Identity(),
                    "block": Block(nn.Linear(width, width), activation),
                    "last": nn.Linear(width, width),
                }
            )
            for _ in range(branches)
        )
        self.head = nn.Linear(width, outputs)
        self.places = tuple(block_place(f"branches.{k}.block") for k in range(branches))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            x = x + branch["last"](branch["block"](branch["norm"](x)))
        return self.out(self.head(x))


class SELUNetwork(Network):
    """A stack of the package's self-normalising layers."""

    def __init__(self, inputs: int, outputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SELULinear(inputs if k == 0 else width, width) for k in range(depth))
        self.plugs = nn.ModuleList(nn.Identity() for _ in range(depth))
        self.head = nn.Linear(width, outputs)
        self.places = tuple(Place(f"layers.{k}.weighted", f"layers.{k}.activation", f"plugs.{k}") for k in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer, plug in zip(self.layers, self.plugs, strict=True):
            x = plug(layer(x))
        return self.out(self.head(x))


class TiedAutoencoder(Network):
    """An encoder whose weights, transposed, decode; a classifier reads the code. Both losses are learned."""

    def __init__(self, inputs: int, outputs: int, activation: str, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = MLP(inputs, outputs, activation, widths)
        self.output = "encoder.head"
        self.places = tuple(block_place(f"encoder.blocks.{k}") for k in range(len(widths)))

    def reconstruct(self, x: Tensor) -> Tensor:
        code = self.encoder.blocks(x)
        for block in reversed(self.encoder.blocks):
            code = F.linear(code, block.weighted.weight.T)
            code = code if block is self.encoder.blocks[0] else block.activation(code)
        return code

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(x))


class Shared(Network):
    """One block applied several times: the same weights at every depth."""

    def __init__(self, inputs: int, outputs: int, activation: str, width: int, times: int) -> None:
        super().__init__()
        self.stem = Block(nn.Linear(inputs, width), activation)
        self.block = Block(nn.Linear(width, width), activation)
        self.head, self.times = nn.Linear(width, outputs), times
        self.places = (block_place("stem"), block_place("block"))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(self.times):
            x = self.block(x)
        return self.out(self.head(x))


class Gated(Network):
    """Gated linear units: one half of the layer opens the other half (SwiGLU with "silu", GLU with "sigmoid")."""

    def __init__(self, inputs: int, outputs: int, activation: str, width: int, depth: int) -> None:
        super().__init__()
        self.stem = Block(nn.Linear(inputs, width), "tanh")
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.values = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.function = FUNCTIONS[activation]
        self.head = nn.Linear(width, outputs)
        self.places = (block_place("stem"),)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for gate, value in zip(self.gates, self.values, strict=True):
            x = x + self.function(gate(x)) * value(x)
        return self.out(self.head(x))


class Highway(Network):
    """A gate mixes what a layer computes with what came in."""

    def __init__(self, inputs: int, outputs: int, activation: str, width: int, depth: int) -> None:
        super().__init__()
        self.stem = Block(nn.Linear(inputs, width), activation)
        self.layers = nn.ModuleList(Block(nn.Linear(width, width), activation) for _ in range(depth))
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        for gate in self.gates:
            nn.init.constant_(gate.bias, -1.0)
        self.head = nn.Linear(width, outputs)
        self.places = (block_place("stem"), *(block_place(f"layers.{k}") for k in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer, gate in zip(self.layers, self.gates, strict=True):
            opened = torch.sigmoid(gate(x))
            x = opened * layer(x) + (1 - opened) * x
        return self.out(self.head(x))
