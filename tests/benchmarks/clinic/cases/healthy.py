"""The healthy runs: everything that looks strange and is not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from ..case import Case
from ..networks.architectures import ARCHITECTURES

OPTIMIZERS = ("adam", "sgd", "adamw", "momentum", "rmsprop")
TABLES = ("wine", "cancer", "diabetes", "moons", "circles", "blobs")
# Of the pair, the first is in half A and the second in half B.
STACKS = (("mlp3", "sequential4"), ("functional3", "functional5"), ("mlp_bn", "mlp_bn_behind"))
WIDER = (*STACKS, ("res_mlp", "res_mlp_plain"), ("selu6", "selu12"), ("tied", "shared"))
IMAGES = (("cnn_bn", "cnn_bn5"), ("lstm", "gru"), ("transformer_pre", "transformer_post"), ("attention1", "attention4"))


def healthy_cases() -> list[Case]:
    """All of them, each once."""
    found = itertools.chain(_every_architecture(), _every_table(), _special(), _small(), _gans())
    return list(dict.fromkeys(found))


def usual(architecture: str, **settings: Any) -> Case:
    """A case with the architecture's usual activation, data and loss, unless others are given."""
    usually = ARCHITECTURES[architecture]
    activation = settings.pop("activation", usually.activations[0])
    return Case(architecture, activation, **{"data": usually.data, "loss": usually.loss, **settings})


def _every_architecture() -> Iterator[Case]:
    """The usual activation with every optimiser, the others with two."""
    for name, architecture in ARCHITECTURES.items():
        for optimizer in OPTIMIZERS if architecture.data == "digits" else ("adam", "adamw"):
            yield usual(name, optimizer=optimizer)
        for k, activation in enumerate(architecture.activations[1:]):
            for optimizer in ("adam", OPTIMIZERS[1 + k % 4]):
                yield usual(name, activation=activation, optimizer=optimizer, seed=1)


def _every_table() -> Iterator[Case]:
    """Small tables: gentle steps, so that they are not learned by heart."""
    for data in TABLES:
        small = data in ("wine", "cancer", "diabetes")
        steps = 150 if small else 300
        for k, name in enumerate(itertools.chain(*STACKS, ("selu6", "mlp6"), ("linear", "linear_bn"))):
            if data in ("moons", "circles") and name.startswith("linear"):
                continue
            optimizer = OPTIMIZERS[k % 5]
            lr = (0.3 if data == "diabetes" else 0.5) if small else 1.0
            decay = 0.02 if data == "diabetes" else 0.0
            yield usual(name, data=data, optimizer=optimizer, lr=lr, steps=steps, batch=32, weight_decay=decay)


def _special() -> Iterator[Case]:
    """Schedules, clipping, accumulation, dropout, batch sizes, frozen and pretrained networks."""
    for pair in (*WIDER, *IMAGES):
        for k, name in enumerate(pair):
            other = OPTIMIZERS[2 * k]
            yield usual(name, schedule="warmup cosine", seed=2, optimizer="adamw")
            yield usual(name, schedule=("cosine", "warmup")[k], seed=2, optimizer=("momentum", "adam")[k])
            yield usual(name, clip=1.0, seed=3, optimizer=("adam", "momentum")[k])
            yield usual(name, batch=(16, 128)[k], seed=4, optimizer=other)
    for pair in STACKS:
        for k, name in enumerate(pair):
            yield usual(name, steps=900, seed=5, optimizer=("adam", "momentum")[k])  # to a loss of nearly zero
            yield usual(name, accumulate=4, batch=16, seed=6, optimizer=("adam", "sgd")[k])
            yield usual(name, dropout=(0.2, 0.1)[k], seed=7)
            yield usual(name, batch=256, seed=8, optimizer=("momentum", "adamw")[k])
            yield usual(name, smoothing=0.1, seed=9, optimizer=("adam", "sgd")[k])
            yield usual(name, imbalance=0.15, seed=10, optimizer=("adamw", "adam")[k])
            yield usual(name, pretrained="frozen", seed=11, optimizer="adam", lr=2.0)
            yield usual(name, pretrained="tuned", seed=12, optimizer=("adam", "sgd")[k], lr=(0.05, 0.1)[k])
            yield usual(name, data="cancer", loss="bce", steps=150, lr=0.5, seed=13, optimizer=("adam", "momentum")[k])
            yield usual(name, data=("moons", "circles")[k], loss="bce", batch=32, seed=14)
    for k, name in enumerate(("mlp3", "sequential4", "functional3", "functional5")):
        yield usual(name, activation="relu", start="sparse", seed=15 + k, optimizer=OPTIMIZERS[k % 2])
    for k, (name, activation) in enumerate(
        (("cnn_bn", "relu"), ("cnn_bn5", "relu"), ("lenet", "relu"), ("cnn", "relu"))
    ):
        yield usual(name, activation=activation, pretrained=("frozen", "tuned")[k // 2], lr=(2.0, 0.1)[k // 2], seed=20)


def _small() -> Iterator[Case]:
    """Few patterns, weight decay and an early end: enough to learn, too short to learn by heart."""
    for k, name in enumerate(itertools.chain(*STACKS)):
        yield usual(name, patterns=400, steps=120, weight_decay=0.02, optimizer="adamw", seed=21 + k, batch=32)


def _gans() -> Iterator[Case]:
    for seed in range(6):
        yield Case("gan", "relu", data="moons", batch=256, steps=900, lr=1.5, seed=seed)
