"""Sick runs, continued: faults of the whole training, from decay to validation; axes, order, pairs, steps."""

from __future__ import annotations

from .sick import DENSE, Row
from .sick_training import NORMED

ROWED = (
    "transformer_pre-gelu digits adam",
    "multihead-relu digits adam",
    "lstm-tanh digits adam",
    "rnn-relu digits adam",
    "transformer_post-relu digits adam",
    "multihead2-gelu digits adam",
    "gru-relu digits adam",
    "lstm2-relu digits adam",
)
KERNELS = ("lstm-tanh digits adam", "rnn-relu digits adam", "gru-relu digits adam", "lstm2-relu digits adam")
PLUGGED = (
    "mlp3-relu digits adam",
    "cnn-relu digits adam",
    "functional3-tanh digits sgd",
    "sequential4-relu digits sgd",
    "mlp6-gelu digits adam",
    "functional5-relu digits momentum",
)
LEAKING: dict[str, tuple[str, ...]] = {
    "mask forgotten": ("next_transformer", "next_attention"),
    "read both ways": ("next_gru", "next_lstm"),
    "padded on both sides": ("next_conv", "next_conv3"),
    "targets not shifted": ("next_transformer", "next_gru", "next_attention", "next_conv3"),
}
ONE_OUTPUT = (
    "mlp3-relu cancer adam",
    "functional3-tanh moons sgd",
    "mlp_ln-gelu circles adam",
    "sequential4-relu cancer sgd",
    "functional5-relu circles adam",
    "mlp6-relu moons momentum",
)
PIXELS = ("mlp3-relu pixels adam", "cnn-relu pixels adam", "sequential4-relu pixels adam", "lenet-relu pixels adam")
DEEP = ("mlp6-relu digits adam",)
BOUNDED = (
    "lstm-tanh pixels adam",
    "transformer_pre-gelu pixels adam",
    "gru-tanh pixels adam",
    "transformer_post-relu pixels adam",
)
SORTED = {"loop": "epochs", "batch": 32}
PASSES = {"loop": "epochs", "steps": 200}  # to be told after passes over the data, not after steps
SHORT = {"steps": 150}  # a fault in the code shows at once
SPOKEN = {"steps": 200}
MANUAL = {"loop": "manual"}
# Rare patterns are few: a small network, for a short time.
RARE = {"imbalance": 0.02, "loss": "weighted", "steps": 150, "batch": 128}
WHOLE: tuple[Row, ...] = (
    # regularisation
    Row(
        "decay too large", ("mlp3-relu digits sgd", "cnn_bn-relu digits sgd", "sequential4-relu digits sgd"), (0.1, 0.5)
    ),
    Row(
        "decay too large",
        ("mlp3-relu digits adam", "functional3-relu digits adam", "functional5-relu digits adam"),
        (1.0, 5.0),
    ),
    Row(
        "decay too large", ("mlp3-relu digits adamw", "mlp6-relu digits adamw", "lenet-relu digits adamw"), (20.0, 60.0)
    ),
    Row(
        "keep probability as dropout",
        (
            "mlp3-relu digits adam",
            "functional3-tanh digits adam",
            "sequential4-relu digits sgd",
            "mlp6-relu digits adam",
        ),
        (0.9, 0.95),
        settings={"dropout": 0.1, "steps": 200},
    ),
    Row(
        "clipped to nothing",
        ("mlp3-relu digits sgd", "cnn-relu digits momentum", *DENSE[3:], "lenet-relu digits sgd"),
        (1e-2, 1e-3),
        settings={"clip": 1.0},
    ),
    Row(
        "entries clipped to nothing",
        ("mlp3-relu digits sgd", "sequential4-relu digits momentum"),
        (1e-4, 1e-5),
        settings={"clip": 1.0},
    ),
    # axes
    Row("batch first forgotten", ROWED, settings=SHORT),
    Row("view for permute", KERNELS, settings=SHORT),
    Row("view of heads", ("attention1-relu digits adam", "attention4-gelu digits adam"), settings=SHORT),
    Row("softmax over batch", ("attention1-relu digits adam", "attention4-gelu digits adam"), settings=SHORT),
    Row("squeezed over batch", ("squeeze-relu digits adam", "squeeze-silu digits momentum"), settings=SHORT),
    Row("summed over batch", ("next_memory-gelu words adam", "next_memory64-gelu words adam"), settings=SHORT),
    Row("normalized over batch", PLUGGED, (1.0,), (1, 0), settings=SHORT),
    Row("mean over batch", PLUGGED, (1.0,), (0, 1), settings=SHORT),
    Row("weighted over batch", PLUGGED, (1.0,), (1, 0), settings=SHORT),
    *(
        Row(kind, [f"{name}-gelu {data} adam" for name in names for data in ("words", "series")], settings=SPOKEN)
        for kind, names in LEAKING.items()
    ),
    # mixture
    Row(
        "rare class",
        (
            "mlp3-relu overlap adam",
            "linear-none overlap adam",
            "functional3-tanh rings adam",
            "sequential4-relu overlap adam",
            "linear_bn-none overlap adam",
            "functional5-relu rings adam",
        ),
        (0.01, 0.03),
        settings=PASSES,
    ),
    Row(
        "weights forgotten",
        (
            "linear-none overlap sgd",
            "linear-none overlap adam",
            "linear_bn-none overlap sgd",
            "linear_bn-none overlap adam",
        ),
        settings={**RARE, **PASSES},
    ),
    Row(
        "weights the wrong way round",
        (
            "linear-none overlap sgd",
            "functional3-tanh overlap sgd",
            "linear-none overlap adam",
            "linear_bn-none overlap sgd",
            "linear_bn-none overlap adam",
        ),
        settings=RARE,
    ),
    Row(
        "weights forgotten",
        ("masks-relu spots adam", "masks_bn-relu spots adam"),
        settings={"loss": "weighted", **PASSES},
    ),
    Row(
        "weights the wrong way round",
        ("masks-relu spots adam", "masks_bn-relu spots adam"),
        settings={"loss": "weighted"},
    ),
    # order
    Row(
        "sorted by class",
        (
            *DENSE,
            "cnn-relu digits adam",
            "lenet-relu digits adam",
            "cnn_bn-relu digits sgd",
            "cnn_bn5-relu digits adam",
            "mlp_ln-gelu digits adam",
            "functional5-relu pixels momentum",
        ),
        settings=SORTED,
    ),
    Row(
        "sorted by target",
        (
            "mlp3-relu friedman adam",
            "functional3-tanh friedman sgd",
            "sequential4-relu friedman adam",
            "functional5-tanh friedman momentum",
        ),
        settings=SORTED,
    ),
    Row(
        "sorted by source",
        (
            "mlp3-relu scanners adam",
            "functional3-relu scanners adam",
            "sequential4-relu scanners adam",
            "mlp_bn_behind-relu scanners adam",
        ),
        settings=SORTED,
    ),
    # validation
    Row(
        "validation raw",
        (
            "mlp3-relu cancer adam",
            "functional3-tanh wine sgd",
            "cnn-relu digits adam",
            "sequential4-relu cancer adam",
            "mlp6-relu wine adam",
            "lenet-relu digits sgd",
        ),
        settings={"steps": 150},
    ),
    Row("validation scaled", PIXELS, (1 / 255,)),
    Row("validation scaled", BOUNDED, (255.0,)),
    Row("validation turned", PIXELS),
    Row("validation inverted", PIXELS),
    Row(
        "other columns",
        (
            "mlp3-relu digits sgd",
            "mlp_ln-gelu wine adam",
            "sequential4-relu digits adam",
            "functional5-relu blobs adam",
        ),
        settings={"steps": 150},
    ),
    Row(
        "other class order",
        (
            "mlp3-relu digits adam",
            "cnn_bn-relu digits adam",
            "lstm-tanh digits adam",
            "sequential4-relu wine sgd",
            "lenet-relu digits adam",
            "mlp6-relu blobs adam",
        ),
        settings={"steps": 200},
    ),
    Row(
        "other word ids",
        (
            "next_gru-gelu words adam",
            "next_conv-gelu words adam",
            "next_lstm-gelu words adam",
            "next_attention-gelu words adam",
        ),
        settings=SPOKEN,
    ),
    # targets
    Row("labels from one", ONE_OUTPUT, settings={**SHORT, "loss": "bce"}),
    Row("labels of both signs", ONE_OUTPUT, settings={**SHORT, "loss": "bce"}),
    Row(
        "mask of 255",
        ("masks-relu spots adam", "masks_bn-relu spots adam", "masks-relu spots momentum", "masks_bn-relu spots adamw"),
        (255.0,),
        settings={"loss": "weighted"},
    ),
    Row(
        "tags under cross entropy",
        ("mlp3-relu tags adam", "functional3-tanh tags sgd", "sequential4-relu tags adam", "functional5-relu tags sgd"),
        settings={"loss": "bce"},
    ),
    # pairs
    Row(
        "labels permuted",
        (
            "mlp3-relu digits sgd",
            "linear-none digits adam",
            "cnn-relu digits adam",
            "mlp_bn_behind-relu friedman sgd",
            "linear_bn-none digits adam",
            "lenet-relu pixels adam",
        ),
        settings=PASSES,
    ),
    Row(
        "shuffled apart",
        (
            *DENSE,
            "cnn_bn-relu digits adam",
            "gru-relu digits adam",
            "mlp_ln-relu friedman adam",
            "next_lstm-gelu words adam",
        ),
        settings=PASSES,
    ),
    # steps
    Row("rate of zero", (*DENSE, "cnn_bn-relu digits adam", "gru-relu digits adamw"), settings=SHORT),
    Row("step forgotten", (*DENSE, "cnn-relu digits adam", "lenet-relu digits sgd"), settings={**SHORT, **MANUAL}),
    Row("loss of a number", (*DENSE, "lstm-tanh digits adam", "lenet-relu digits sgd"), settings=SHORT),
    Row("optimizer of a copy", (*DENSE, "transformer_pre-gelu digits adam", "lenet-relu digits sgd"), settings=SHORT),
    Row(
        "gradients not cleared",
        (*DENSE, "mlp_ln-gelu digits adam", "cnn-relu digits adam", "lenet-relu digits momentum"),
        settings=SHORT,
    ),
    Row("gradients not cleared", (*DENSE, NORMED[1], "lenet-relu digits adamw"), settings={**SHORT, **MANUAL}),
    # outputs
    Row("first pattern only", (*DENSE, "cnn-relu digits adam", "lenet-relu digits adam"), settings=SHORT),
    Row("integer division", PIXELS, settings=SHORT),
    Row("everything dropped", PLUGGED, settings=SHORT),
    Row("times nothing", PLUGGED, settings=SHORT),
    Row("softmax of one output", ONE_OUTPUT, settings={**SHORT, "loss": "bce"}),
)
