"""Sick runs, continued: faults of data, settings and code."""

from __future__ import annotations

from .sick import DENSE, Row

MIXED = (
    *DENSE,
    "cnn-relu digits adam",
    "lenet-relu digits adam",
    "transformer_pre-gelu digits adam",
    "gru-relu digits adam",
)
SMOOTH = ("functional3-tanh digits momentum", "sequential4-tanh digits sgd", "mlp6-relu digits sgd")
NORMED = (
    "mlp_bn-relu digits adam",
    "cnn_bn-relu digits sgd",
    "res_cnn-relu digits adam",
    "mlp_bn_behind-relu digits sgd",
    "cnn_bn5-relu digits adam",
)
TRAINING: tuple[Row, ...] = (
    # input
    Row("input scaled", ("mlp3-tanh digits sgd", *SMOOTH, "lenet-tanh digits momentum"), (255.0, 1e-3)),
    Row(
        "input scaled",
        ("mlp3-relu digits momentum", "mlp6-relu digits momentum", "lenet-relu digits momentum"),
        (16.0,),
    ),
    Row("input offset", ("mlp3-tanh digits sgd", *SMOOTH, "lenet-tanh digits momentum"), (10.0,)),
    Row(
        "huge feature",
        ("mlp3-tanh wine sgd", "functional3-relu cancer momentum", "sequential4-relu wine sgd"),
        (1000.0,),
    ),
    # learning rate
    Row("learning rate high", MIXED, (30.0, 300.0)),
    Row("learning rate low", MIXED, (1e-3, 1e-5)),
    # overfitting
    Row(
        "few noisy patterns",
        (
            "mlp3-relu digits adam",
            "functional3-relu digits sgd",
            "mlp_ln-gelu digits adam",
            "res_mlp-relu digits adam",
            "sequential4-relu digits adam",
            "functional5-relu digits adam",
            "lenet-relu digits adam",
            "res_mlp_plain-relu digits adam",
        ),
        (120.0, 200.0),
        settings={"steps": 600, "batch": 32},
    ),
    # batch statistics
    Row("small batches", NORMED, (2.0, 4.0)),
    Row("slow statistics", NORMED, (1e-4,)),
    Row("left in eval", NORMED),
    Row("dropout before norm", NORMED, (0.5,), (1, 0)),
)
CODE: tuple[Row, ...] = (
    # NaN and Inf
    Row("nan in data", MIXED[:6], (0.0, 20.0)),
    Row("log", ("mlp3-relu digits adam", "sequential4-tanh digits sgd"), (1.0,), (1,)),
    Row("root", ("functional3-relu digits sgd", "mlp6-relu digits adam"), (1.0,), (1,)),
    Row("zero by zero", ("mlp3-relu digits adam", "lenet-relu digits sgd"), (1.0,), (1,)),
    Row("infinite weight", ("mlp10-relu digits adam", "functional5-tanh digits sgd"), (1.0,), (2,)),
    # parameters
    Row(
        "detach",
        ("mlp3-relu digits adam", "cnn-relu digits sgd", "sequential4-relu digits sgd", "lenet-relu digits adam"),
        (1.0,),
        (1, 0),
    ),
    Row(
        "not in optimizer",
        ("mlp3-relu digits adam", "lstm-tanh digits adam", "mlp6-relu digits sgd", "lenet-relu digits adam"),
        (1.0,),
        (0, 0, 1),
    ),
    Row(
        "never used",
        ("mlp3-relu digits adam", "res_mlp-relu digits sgd", "sequential4-gelu digits adam", "gru-relu digits sgd"),
    ),
    # output
    Row("softmax before cross entropy", MIXED),
    Row("relu on output", MIXED[:6]),
    Row("huge output weights", DENSE, (100.0,)),
    Row("too many outputs", DENSE, (1000.0,)),
    Row("nll of logits", DENSE),
    Row(
        "sigmoid before logits loss",
        (
            "mlp3-relu cancer adam",
            "functional3-relu moons sgd",
            "sequential4-relu cancer sgd",
            "functional5-relu circles adam",
        ),
        settings={"loss": "bce"},
    ),
    Row(
        "mse of other shape",
        (
            "mlp3-relu diabetes adam",
            "selu6-selu diabetes sgd",
            "sequential4-relu diabetes sgd",
            "mlp_bn_behind-relu diabetes adam",
        ),
        settings={"lr": 0.3, "steps": 200, "batch": 32, "weight_decay": 0.02},
    ),
)
