"""Networks for the 8 x 8 digits as images."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import FUNCTIONS, Block, Network, Place, block_place

Norm = Callable[[int], nn.Module]


def _image(x: Tensor) -> Tensor:
    return x.view(-1, 1, 8, 8)


def _stack(activation: str, channels: tuple[int, ...], norm: Norm | None) -> nn.Sequential:
    return nn.Sequential(
        *(
            Block(nn.Conv2d(fan_in, width, 3, padding=1), activation, norm(width) if norm else None)
            for fan_in, width in zip((1, *channels), channels, strict=False)
        )
    )


class CNN(Network):
    """Convolutions, then the mean over space."""

    def __init__(self, outputs: int, activation: str, channels: tuple[int, ...], norm: Norm | None = None) -> None:
        super().__init__()
        self.features = _stack(activation, channels, norm)
        self.head = nn.Linear(channels[-1], outputs)
        self.places = tuple(block_place(f"features.{k}", norm is not None) for k in range(len(channels)))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.head(self.features(_image(x)).mean((2, 3))))


class PooledCNN(Network):
    """Convolutions and max pooling called as functions, then a dense layer (LeNet)."""

    def __init__(self, outputs: int, activation: str) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.dense, self.fc_out = nn.Linear(128, 64), nn.Linear(64, outputs)
        self.plug1, self.plug2, self.plug3 = nn.Identity(), nn.Identity(), nn.Identity()
        self.output = "fc_out"
        self.functions = [FUNCTIONS[activation]] * 3
        self.places = (Place("conv1", plug="plug1"), Place("conv2", plug="plug2"), Place("dense", plug="plug3"))

    def forget(self, place: int) -> None:
        self.functions[place] = lambda x: x

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.plug1(self.functions[0](self.conv1(_image(x)))), 2)
        x = F.max_pool2d(self.plug2(self.functions[1](self.conv2(x))), 2)
        return self.out(self.fc_out(self.plug3(self.functions[2](self.dense(x.flatten(1))))))


class ResidualCNN(Network):
    """Residual blocks of two normalised convolutions."""

    def __init__(self, outputs: int, activation: str, width: int, branches: int, norm: Norm) -> None:
        super().__init__()
        self.stem = Block(nn.Conv2d(1, width, 3, padding=1), activation, norm(width))
        self.branches = nn.ModuleList(
            nn.ModuleDict(
                {
                    "block": Block(nn.Conv2d(width, width, 3, padding=1), activation, norm(width)),
                    "last": nn.Conv2d(width, width, 3, padding=1),
                    "norm": norm(width),
                }
            )
            for _ in range(branches)
        )
        self.function = FUNCTIONS[activation]
        self.head = nn.Linear(width, outputs)
        inner = (block_place(f"branches.{k}.block", True) for k in range(branches))
        self.places = (block_place("stem", True), *inner)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.stem(_image(x)), 2)
        for branch in self.branches:
            x = self.function(x + branch["norm"](branch["last"](branch["block"](x))))
        return self.out(self.head(x.mean((2, 3))))


class SqueezeExcite(Network):
    """Convolutions whose channels are weighted by a gate that looks at their means over the axes of space."""

    crossing = "squeeze"

    def __init__(self, outputs: int, activation: str) -> None:
        super().__init__()
        self.first = Block(nn.Conv2d(1, 16, 3, padding=1), activation)
        self.squeeze, self.excite = nn.Linear(16, 4), nn.Linear(4, 16)
        self.second = Block(nn.Conv2d(16, 32, 3, padding=1), activation)
        self.head, self.axes = nn.Linear(32, outputs), (2, 3)
        self.places = (block_place("first"), block_place("second"))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(_image(x))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(self.axes).view(-1, 16)))))
        return self.out(self.head(self.second(x * gate[:, :, None, None]).mean((2, 3))))


class Segmenter(Network):
    """Convolutions that say for every pixel of a square image whether it belongs to something."""

    def __init__(self, activation: str, channels: tuple[int, ...], norm: Norm | None = None) -> None:
        super().__init__()
        self.features = _stack(activation, channels, norm)
        self.head = nn.Conv2d(channels[-1], 1, 1)
        self.places = tuple(block_place(f"features.{k}", norm is not None) for k in range(len(channels)))

    def forward(self, x: Tensor) -> Tensor:
        side = math.isqrt(x.shape[1])
        return self.out(self.head(self.features(x.view(-1, 1, side, side))).flatten(1))
