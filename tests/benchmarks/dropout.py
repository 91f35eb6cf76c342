"""Alpha dropout against torch's: seconds for forward and backward, by size.

python tests/benchmarks/dropout.py            (on the GPU too, where there is one)
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_tricks.nn import alpha_dropout

P = 0.1
SIZES = (8_192, 32_768, 262_144, 4_194_304)
CONTENDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "ours": lambda x: alpha_dropout(x, P),
    "nn.AlphaDropout": lambda x: F.alpha_dropout(x, P, True),
    "nn.Dropout": lambda x: F.dropout(x, P, True),
}


def seconds(step: Callable[[], None], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(size: int, device: str, repeats: int) -> dict[str, float]:
    """Medians; the contenders take turns, so that a disturbance meets all of them."""
    x = torch.randn(size, device=device, requires_grad=True)
    gradient = torch.ones(size, device=device)

    def step_of(function: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def step() -> None:
            x.grad = None
            function(x).backward(gradient)

        return step

    steps = {name: step_of(function) for name, function in CONTENDERS.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 3):
        for name, step in steps.items():
            taken = seconds(step, device)
            if repeat >= 3:
                times[name].append(taken)
    return {name: median(values) for name, values in times.items()}


def main() -> None:
    print(f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads, p = {P}, float32")
    print(
        f"{'device':8s}{'elements':>10s}" + "".join(f"{name + ' [us]':>22s}" for name in CONTENDERS) + f"{'ratio':>8s}"
    )
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        for size in SIZES:
            result = measure(size, device, repeats=max(15, min(400, 40_000_000 // size)))
            cells = "".join(f"{1e6 * result[name]:22.1f}" for name in CONTENDERS)
            print(f"{device:8s}{size:10d}{cells}{result['nn.AlphaDropout'] / result['ours']:8.2f}")


if __name__ == "__main__":
    main()
