"""What torch's optimisers ask in every step."""

from __future__ import annotations

from torch.optim import Optimizer

# By the name that each version of torch has; where it has none of them, the question is not put or not skipped.
_GRAPH_CAPTURE = ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")


def skip_graph_capture_check(optimizer: Optimizer) -> None:
    """Leave out the question whether a GPU captures its graph, for an optimiser whose parameters are on the CPU.

    It costs as much as a small backward pass.
    """
    for question in _GRAPH_CAPTURE:
        if hasattr(optimizer, question):
            setattr(optimizer, question, _nothing)


def _nothing() -> None:
    pass
