"""Every activation and recurrent layer of torch, each in a small network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .entry import Entry
from .small import SEQUENCE, Called, entry, mlp

ACTIVATIONS = [
    "CELU",
    "ELU",
    "GELU",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "Mish",
    "PReLU",
    "ReLU",
    "ReLU6",
    "RReLU",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
]
UNCOUNTED = ("Softsign",)  # composed of others before torch's dispatcher is asked


def _activation(name: str) -> Entry:
    differs = "seen, where the dispatcher has no name for it" if name in UNCOUNTED else ""
    return entry(f"nn.{name}", lambda: mlp(getattr(nn, name)()), differs=differs, group="torch activations")


def _last(net: Any, x: Tensor) -> Tensor:
    return net.head(net.core(x)[0][:, -1])


def _recurrent(kind: str, layers: int, both: bool) -> Entry:
    def make() -> nn.Module:
        core = getattr(nn, kind)(6, 8, layers, batch_first=True, bidirectional=both, dropout=0.1 * (layers > 1))
        return Called(_last, core=core, head=nn.Linear(16 if both else 8, 3))

    return entry(f"nn.{kind}, {layers} layers{', both ways' * both}", make, SEQUENCE, group="torch recurrent")


def _by_cell(net: Any, x: Tensor) -> Tensor:
    state = None
    for column in x.unbind(1):
        state = net.cell(column, state)
    return net.head(state[0] if isinstance(state, tuple) else state)


def _cell(kind: str) -> Entry:
    return entry(
        f"nn.{kind}",
        lambda: Called(_by_cell, cell=getattr(nn, kind)(6, 8), head=nn.Linear(8, 3)),
        SEQUENCE,
        group="torch recurrent",
    )


ENTRIES = [
    *map(_activation, ACTIVATIONS),
    *(_recurrent(kind, layers, both) for kind in ("RNN", "GRU", "LSTM") for layers, both in ((1, False), (2, True))),
    *map(_cell, ("RNNCell", "GRUCell", "LSTMCell")),
]
