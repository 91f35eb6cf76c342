"""Networks that say at every position what comes next, of words (as many outputs) or of a series (one output)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import Block, Network, block_place

LONGEST = 32


class Foreteller(Network):
    """An embedding, something in which positions meet (the mixer), a hidden layer, a head."""

    crossing = "mixer"

    def __init__(self, mixer: nn.Module, outputs: int, activation: str, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Linear(1, width) if outputs == 1 else nn.Embedding(outputs, width)
        self.mixer, self.block = mixer, Block(nn.Linear(width, width), activation)
        self.head = nn.Linear(width, outputs)
        self.places = (block_place("block"),)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.head(self.block(self.mixer(self.embed(x)))))


class Kernel(nn.Module):
    """A recurrent kernel of torch."""

    def __init__(self, kind: type[nn.RNNBase], width: int = 48) -> None:
        super().__init__()
        self.kernel = kind(width, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernel(x)[0]


class Causal(nn.Module):
    """torch's encoder layers; every position sees those before it, all of them where ``masked`` is False."""

    def __init__(self, depth: int, pre: bool, width: int = 48) -> None:
        super().__init__()
        self.position = nn.Parameter(0.1 * torch.randn(LONGEST, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=pre)
        self.encoder, self.masked = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False), True

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).triu(1) if self.masked else None
        return self.encoder(x + self.position[:length], mask=mask)


class CausalByHand(nn.Module):
    """Attention of several heads written by hand, residual."""

    def __init__(self, depth: int, width: int = 48, heads: int = 4) -> None:
        super().__init__()
        self.position = nn.Parameter(0.1 * torch.randn(LONGEST, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(depth))
        self.mix = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.heads, self.masked = heads, True

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        x = x + self.position[:length]
        for norm, qkv, mix in zip(self.norms, self.qkv, self.mix, strict=True):
            q, k, v = qkv(norm(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=self.masked)
            x = x + mix(seen.transpose(1, 2).reshape(batch, length, width))
        return x


class Convolutions(nn.Module):
    """Convolutions over time, padded before the first position only, on both sides where ``causal`` is False."""

    def __init__(self, depth: int, width: int = 48) -> None:
        super().__init__()
        self.layers, self.causal = nn.ModuleList(nn.Conv1d(width, width, 3) for _ in range(depth)), True

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        for layer in self.layers:
            x = x + F.gelu(layer(F.pad(x, (2, 0) if self.causal else (1, 1))))
        return x.transpose(1, 2)


class Memory(nn.Module):
    """The word, the one before, and the mean of all up to it; ``axis`` is that of time."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.join, self.axis = nn.Linear(3 * width, width), 1

    def forward(self, x: Tensor) -> Tensor:
        count = torch.arange(1.0, x.shape[self.axis] + 1).view([-1 if k == self.axis else 1 for k in range(3)])
        before = F.pad(x, (0, 0, 1, 0))[:, :-1]
        return self.join(torch.cat([x, before, x.cumsum(self.axis) / count], 2))
