"""Networks for the digits as a sequence of eight rows: transformers, attention, recurrent kernels and cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .network import Block, Network, Place, block_place


def _rows(x: Tensor) -> Tensor:
    return x.view(-1, 8, 8)


class Transformer(Network):
    """torch's own encoder layers."""

    crossing = "encoder"

    def __init__(self, outputs: int, activation: str, depth: int, pre: bool, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.02 * torch.randn(8, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, 0.1, activation=activation, batch_first=True, norm_first=pre
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        for each in self.encoder.layers:
            for parameter in each.parameters():  # the encoder's layers are copies of one
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
        self.head = nn.Linear(width, outputs)
        self.places = tuple(Place(f"encoder.layers.{k}.linear1") for k in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.head(self.encoder(self.embed(_rows(x)) + self.position).mean(1)))


class Attention(Network):
    """Attention written by hand, a dense block behind it, both residual; ``axis`` is that of the softmax."""

    crossing = "layers"

    def __init__(self, outputs: int, activation: str, depth: int, heads: int = 1, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.1 * torch.randn(8, width))
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "mix": nn.Linear(width, width),
                    "norm2": nn.LayerNorm(width),
                    "block": Block(nn.Linear(width, 2 * width), activation),
                    "last": nn.Linear(2 * width, width),
                }
            )
            for _ in range(depth)
        )
        self.heads, self.axis = heads, -1
        self.head = nn.Linear(width, outputs)
        self.places = tuple(block_place(f"layers.{k}.block") for k in range(depth))

    def attend(self, layer: nn.ModuleDict, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = layer["qkv"](x).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = torch.softmax(q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5, dim=self.axis)
        return layer["mix"]((scores @ v).transpose(1, 2).reshape(batch, time, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(_rows(x)) + self.position
        for layer in self.layers:
            x = x + self.attend(layer, layer["norm"](x))
            x = x + layer["last"](layer["block"](layer["norm2"](x)))
        return self.out(self.head(x.mean(1)))


class Recurrent(Network):
    """A recurrent kernel of torch, then a hidden layer."""

    crossing = "recurrent"

    def __init__(self, outputs: int, activation: str, kind: str, depth: int = 1, width: int = 48) -> None:
        super().__init__()
        kernel = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind]
        self.recurrent = kernel(8, width, depth, batch_first=True)
        self.block = Block(nn.Linear(width, width), activation)
        self.head = nn.Linear(width, outputs)
        self.places = (block_place("block"),)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.head(self.block(self.recurrent(_rows(x))[0][:, -1])))


class MultiHead(Network):
    """torch's multi-head attention over the rows, residual, then a hidden layer."""

    crossing = "attention"

    def __init__(self, outputs: int, activation: str, heads: int, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.1 * torch.randn(8, width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.block = Block(nn.Linear(width, width), activation)
        self.head = nn.Linear(width, outputs)
        self.places = (block_place("block"),)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(_rows(x)) + self.position
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.out(self.head(self.block(x).mean(1)))


class Cell(Network):
    """A gated recurrent unit written by hand; ``minimal`` has one gate less."""

    def __init__(self, outputs: int, activation: str, minimal: bool, width: int = 48) -> None:
        super().__init__()
        self.width = width
        self.update, self.state, self.input = nn.Linear(width + 8, width), nn.Linear(width, width), nn.Linear(8, width)
        self.reset = None if minimal else nn.Linear(width + 8, width)
        self.block = Block(nn.Linear(width, width), activation)
        self.head = nn.Linear(width, outputs)
        self.places = (block_place("block"),)

    def forward(self, x: Tensor) -> Tensor:
        x = _rows(x)
        h = x.new_zeros(len(x), self.width)
        for row in x.unbind(1):
            both = torch.cat([row, h], 1)
            z = torch.sigmoid(self.update(both))
            known = h if self.reset is None else torch.sigmoid(self.reset(both)) * h
            h = z * h + (1 - z) * torch.tanh(self.input(row) + self.state(known))
        return self.out(self.head(self.block(h)))
