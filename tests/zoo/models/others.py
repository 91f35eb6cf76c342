"""UNets of diffusers, adapters of peft, and networks that pass messages along the edges of a graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .entry import Entry, missing, vectors

# --- graphs: each layer is given the nodes' features and the edges --------------------------------------------


def graph() -> tuple[Tensor, Tensor]:
    return torch.randn(10, 6), torch.randint(10, (2, 30))


class Convolution(nn.Module):
    """GCN: the mean of the neighbours, by a sum over edges that is divided by the degree."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x, (source, target) = self.linear(x), edges
        degree = torch.zeros(len(x)).index_add(0, target, torch.ones(len(target))).clamp(min=1)
        return torch.zeros_like(x).index_add(0, target, x[source]) / degree[:, None]


class Sage(nn.Module):
    """GraphSAGE: a node's own features and the largest of its neighbours'."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.own, self.others = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        index = target[:, None].expand(-1, x.shape[1])
        largest = torch.zeros_like(x).scatter_reduce(0, index, x[source], "amax", include_self=False)
        return self.own(x) + self.others(largest)


class Attention(nn.Module):
    """GAT: a softmax over the edges into a node."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear, self.score = nn.Linear(inputs, outputs), nn.Parameter(torch.randn(2 * outputs) / outputs)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x, (source, target) = self.linear(x), edges
        score = F.leaky_relu(torch.cat([x[source], x[target]], 1) @ self.score, 0.2).exp()
        total = torch.zeros(len(x)).index_add(0, target, score)
        return torch.zeros_like(x).index_add(0, target, x[source] * (score / total[target])[:, None])


class Isomorphism(nn.Module):
    """GIN: a network of the sum of a node and its neighbours."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Linear(outputs, outputs)
        )
        self.epsilon = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.net((1 + self.epsilon) * x + torch.zeros_like(x).index_add(0, edges[1], x[edges[0]]))


class Gated(nn.Module):
    """GG-NN: a recurrent cell that is given the sum of the messages."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.message, self.cell, self.lift = (
            nn.Linear(outputs, outputs),
            nn.GRUCell(outputs, outputs),
            nn.Linear(inputs, outputs),
        )

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = self.lift(x)
        return self.cell(torch.zeros_like(x).index_add(0, edges[1], self.message(x)[edges[0]]), x)


class Messages(nn.Module):
    def __init__(self, kind: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.one, self.two = kind(6, 8), kind(8, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(x, edges)), edges)


def graphs() -> list[Entry]:
    kinds = {"GCN": Convolution, "GraphSAGE": Sage, "GAT": Attention, "GIN": Isomorphism, "GG-NN": Gated}
    return [Entry(n, "message passing", functools.partial(Messages, k), graph, fast=True) for n, k in kinds.items()]


# --- diffusers -------------------------------------------------------------------------------------------------

SMALL = {"sample_size": 16, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
CONDITIONED = {"cross_attention_dim": 12, "attention_head_dim": 4}


def _diffuser(kind: str, options: dict[str, Any]) -> nn.Module:
    import diffusers

    return getattr(diffusers, kind)(**options)


def _noise(*shape: int, **more: tuple[int, ...]) -> Callable[[], dict[str, Any]]:
    return lambda: {
        "sample": torch.randn(shape),
        "timestep": torch.tensor([3] * shape[0]),
        **{name: torch.randn(size) for name, size in more.items()},
    }


def diffusers() -> list[Entry]:
    import diffusers  # noqa: F401, before processes are forked

    down, up = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
    crossed = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    deep = {
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    }
    text = {"encoder_hidden_states": (2, 5, 12)}
    kinds: dict[str, tuple[str, dict[str, Any], Callable[[], Any]]] = {
        "UNet2DModel": ("UNet2DModel", {**SMALL, "down_block_types": down, "up_block_types": up}, _noise(2, 3, 16, 16)),
        "UNet2DConditionModel": (
            "UNet2DConditionModel",
            {**SMALL, **crossed, **CONDITIONED},
            _noise(2, 4, 16, 16, **text),
        ),
        "UNet3DConditionModel": (
            "UNet3DConditionModel",
            {**SMALL, **deep, **CONDITIONED},
            _noise(1, 4, 2, 16, 16, encoder_hidden_states=(1, 5, 12)),
        ),
        "UNet1DModel": (
            "UNet1DModel",
            {
                "sample_size": 64,
                "block_out_channels": (32, 64),
                "layers_per_block": 1,
                "in_channels": 2,
                "out_channels": 2,
                "extra_in_channels": 64,
                "down_block_types": ("DownBlock1DNoSkip", "AttnDownBlock1D"),
                "up_block_types": ("AttnUpBlock1D", "UpBlock1DNoSkip"),
            },
            _noise(2, 2, 64),
        ),
        "DiTTransformer2DModel": (
            "DiTTransformer2DModel",
            {
                "num_attention_heads": 2,
                "attention_head_dim": 8,
                "in_channels": 4,
                "num_layers": 2,
                "sample_size": 8,
                "norm_num_groups": 4,
            },
            lambda: {
                "hidden_states": torch.randn(2, 4, 8, 8),
                "timestep": torch.tensor([3, 3]),
                "class_labels": torch.tensor([0, 1]),
            },
        ),
        "AutoencoderKL": (
            "AutoencoderKL",
            {
                "sample_size": 16,
                "block_out_channels": (8, 16),
                "norm_num_groups": 4,
                "down_block_types": ("DownEncoderBlock2D",) * 2,
                "up_block_types": ("UpDecoderBlock2D",) * 2,
            },
            lambda: {"sample": torch.randn(2, 3, 16, 16)},
        ),
    }
    return [Entry(n, "diffusers", functools.partial(_diffuser, k, o), batch) for n, (k, o, batch) in kinds.items()]


# --- peft ------------------------------------------------------------------------------------------------------


def _adapted(kind: str, options: dict[str, Any]) -> nn.Module:
    import peft

    net = nn.Sequential()
    for name, layer in (("one", nn.Linear(6, 8)), ("act", nn.ReLU()), ("two", nn.Linear(8, 3))):
        net.add_module(name, layer)
    return peft.get_peft_model(net, getattr(peft, kind)(target_modules=["one", "two"], **options))


def adapters() -> list[Entry]:
    import peft  # noqa: F401

    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "LoRA": ("LoraConfig", {"r": 2, "lora_dropout": 0.1}),
        "LoRA, rank-stabilised": ("LoraConfig", {"r": 2, "use_rslora": True}),
        "DoRA": ("LoraConfig", {"r": 2, "use_dora": True}),
        "AdaLoRA": ("AdaLoraConfig", {"init_r": 2, "target_r": 1, "total_step": 10}),
        "LoHa": ("LoHaConfig", {"r": 2}),
        "LoKr": ("LoKrConfig", {"r": 2}),
        "IA3": ("IA3Config", {"feedforward_modules": ["two"]}),
        "OFT": ("OFTConfig", {"oft_block_size": 2, "r": 0}),
        "VeRA": ("VeraConfig", {"r": 2}),
    }
    why = {"VeRA": "weights that are buffers, which the dispatcher's count does not take for weights"}
    batch = vectors(8, 6)
    return [
        Entry(n, "peft", functools.partial(_adapted, k, o), batch, differs=why.get(n, ""))
        for n, (k, o) in kinds.items()
    ]


ENTRIES = [
    *graphs(),
    *([] if missing("diffusers") else diffusers()),
    *([] if missing("peft") else adapters()),
]
