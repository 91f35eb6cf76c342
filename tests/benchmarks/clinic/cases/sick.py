"""The sick runs: every kind of fault at several strengths, in architectures of both halves."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from ..case import Case, Fault

Place = int | None


@dataclasses.dataclass(frozen=True)
class Row:
    """A kind of fault with the networks it is planted in.

    Args:
        kind: A name in ``faults.KINDS``.
        bases: ``"mlp3-tanh circles sgd"``: architecture and activation, data, optimiser; those of both halves.
        strengths: Each is planted in each base.
        places: Taken in turns.
        settings: Other settings of these runs and of their twins.
    """

    kind: str
    bases: Sequence[str]
    strengths: Sequence[float] = (1.0,)
    places: Sequence[Place] = (None,)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def cases(self) -> Iterator[Case]:
        for k, (base, strength) in enumerate(itertools.product(self.bases, self.strengths)):
            fault = Fault(self.kind, self.places[k % len(self.places)], strength)
            network, data, optimizer = base.split()
            architecture, activation = network.split("-")
            yield Case(architecture, activation, data, optimizer, faults=(fault,), **{"seed": k % 3, **self.settings})


DENSE = ("mlp3-relu digits adam", "functional3-relu digits sgd", "sequential4-relu digits adam", "mlp6-relu digits sgd")
LAYERS: tuple[Row, ...] = (
    # linearity
    # Of all layers in shallow networks (in deep ones the gradient would vanish as well, and that would be the name), or
    # of one layer: its own gradient is not small, so it does harm only where steps are small.
    Row(
        "tiny weights",
        (
            "mlp3-tanh circles sgd",
            "mlp3-gelu digits sgd",
            "functional3-tanh moons momentum",
            "sequential4-tanh circles sgd",
            "sequential4-gelu digits momentum",
            "sequential4-elu moons sgd",
        ),
        (0.03, 1e-3),
    ),
    Row(
        "tiny weights",
        (
            "mlp3-tanh digits sgd",
            "functional3-tanh digits sgd",
            "sequential4-tanh digits sgd",
            "sequential4-elu digits sgd",
        ),
        (1e-3, 1e-5),
        (1, 2),
        {"lr": 0.25},
    ),
    Row(
        "always on",
        ("mlp3-relu circles sgd", "functional3-relu moons sgd", "sequential4-relu circles sgd", "mlp6-relu moons sgd"),
        (5.0, 20.0),
        (None,),
    ),
    Row(
        "no activation",
        (
            "mlp3-relu circles adam",
            "functional3-tanh digits sgd",
            "cnn-relu digits adam",
            "selu6-selu moons adam",
            "sequential4-relu circles sgd",
            "functional5-relu digits adam",
            "lenet-relu digits momentum",
            "mlp_bn_behind-relu circles adam",
        ),
    ),
    Row(
        "last activation forgotten",
        (
            "mlp3-relu digits adam",
            "functional3-relu circles sgd",
            "mlp10-tanh digits momentum",
            "sequential4-gelu digits sgd",
            "functional5-tanh digits adam",
            "lenet-relu digits adam",
        ),
    ),
    # saturation
    Row(
        "huge weights",
        (
            "mlp3-tanh digits adam",
            "mlp10-tanh digits sgd",
            "functional3-tanh digits momentum",
            "sequential4-tanh digits sgd",
            "mlp6-tanh digits adam",
            "functional5-tanh digits momentum",
        ),
        (30.0, 300.0),
        (None,),
    ),
    Row(
        "huge biases",
        (
            "mlp3-tanh digits adam",
            "functional3-tanh digits sgd",
            "mlp3-sigmoid digits adam",
            "sequential4-tanh digits sgd",
            "mlp6-tanh digits adam",
            "functional5-tanh digits momentum",
        ),
        (8.0, 20.0),
        (1, 0, 2),
    ),
    Row(
        "normal weights",
        ("mlp10-tanh digits sgd", "mlp3-tanh digits adam", "mlp6-tanh digits momentum", "functional5-tanh digits sgd"),
        (1.0, 3.0),
    ),
    # dead units
    Row(
        "negative biases",
        (
            "mlp3-relu digits adam",
            "functional3-relu digits sgd",
            "mlp10-relu digits momentum",
            "cnn-relu digits adam",
            "sequential4-relu digits sgd",
            "mlp6-relu digits adam",
            "functional5-relu digits rmsprop",
            "lenet-relu digits sgd",
        ),
        (-8.0, -30.0),
        (1, 0, 2),
    ),
    Row(
        "negative weights",
        (
            "mlp3-relu digits adam",
            "functional3-relu digits sgd",
            "sequential4-relu digits adam",
            "mlp6-relu digits sgd",
        ),
        (1.0, 3.0),
        (1, 2),
    ),
    # gradients
    Row(
        "deep sigmoid",
        (
            "mlp10-relu digits adam",
            "mlp10-tanh digits sgd",
            "mlp10-selu digits momentum",
            "mlp6-relu digits adam",
            "mlp6-tanh digits sgd",
            "selu12-selu digits adam",
        ),
    ),
    Row(
        "small weights",
        ("mlp10-tanh digits sgd", "mlp10-relu digits momentum", "selu12-selu digits sgd", "mlp6-relu digits sgd"),
        (0.2, 0.35),
    ),
    Row(
        "large weights",
        ("mlp10-relu digits sgd", "mlp10-relu digits adam", "selu12-selu digits sgd", "mlp6-relu digits momentum"),
        (3.0, 6.0),
    ),
    # bias problem
    Row(
        "shifted output",
        (
            "mlp3-relu digits sgd",
            "functional3-tanh digits momentum",
            "mlp10-tanh digits adam",
            "res_mlp-gelu digits sgd",
            "sequential4-relu digits sgd",
            "mlp6-tanh digits momentum",
            "functional5-tanh digits adam",
            "lenet-relu digits sgd",
        ),
        (4.0, 15.0),
        (0, 1),
    ),
    Row("shifted norm", ("mlp_bn_behind-relu digits sgd", "mlp_bn_behind-elu digits adam"), (60.0, 200.0), (0, 1)),
    Row(
        "positive units",
        (
            "mlp3-tanh digits sgd",
            "mlp10-tanh digits momentum",
            "mlp6-tanh digits sgd",
            "sequential4-tanh digits momentum",
        ),
        (12.0, 30.0),
    ),
    # the start
    Row(
        "layer scaled",
        (
            "mlp3-relu digits sgd",
            "mlp10-relu digits momentum",
            "cnn-relu digits sgd",
            "sequential4-relu digits sgd",
            "mlp6-relu digits sgd",
            "lenet-relu digits sgd",
        ),
        (100.0, 300.0),
        (1, 0, 2),
    ),
    Row(
        "layer scaled",
        (
            "mlp3-relu digits sgd",
            "functional3-relu digits momentum",
            "sequential4-relu digits sgd",
            "lenet-relu digits sgd",
        ),
        (1e-3, 1e-5),
        (1, 2),
        {"lr": 0.5},
    ),
    Row(
        "all scaled",
        (
            "mlp3-relu digits sgd",
            "functional3-relu digits adam",
            "sequential4-relu digits sgd",
            "functional5-relu digits sgd",
        ),
        (0.1, 5.0),
    ),
    Row(
        "all tiny",
        (
            "mlp3-relu digits sgd",
            "mlp10-relu digits adam",
            "lenet-relu digits sgd",
            "sequential4-relu digits sgd",
            "mlp6-relu digits adam",
        ),
        (1e-3,),
    ),
    # symmetry
    Row("constant weights", DENSE, (0.1, 0.0), (1, 2, 0)),
    Row("all constant", DENSE, (0.05,)),
)
