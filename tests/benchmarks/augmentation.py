"""A batch augmented at once, against torchvision sample by sample and kornia (where it is installed).

python -m tests.benchmarks.augmentation [--batch 256] [--side 32] [--channels 3] [--device cpu]
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

import lightning_tricks as lt
from tests.benchmarks.machine import describe

Augment = Callable[[Tensor], Tensor]
DEGREES, SHIFT, SCALE, SHEAR, ALPHA, SIGMA = 10.0, 0.1, (0.9, 1.1), 5.0, 34.0, 4.0


def each(transform: Augment) -> Augment:
    """torchvision draws once a call: a call for every sample."""
    return lambda x: torch.stack([transform(image) for image in x])


def contestants() -> dict[str, dict[str, Augment]]:
    bilinear = v2.InterpolationMode.BILINEAR
    shear = [-SHEAR, SHEAR, -SHEAR, SHEAR]
    found: dict[str, dict[str, Augment]] = {
        "affine": {
            "lightning_tricks": lt.nn.RandomAffine(DEGREES, SHIFT, SCALE, SHEAR),
            "torchvision": each(v2.RandomAffine(DEGREES, (SHIFT, SHIFT), SCALE, shear, bilinear)),
        },
        "elastic": {
            "lightning_tricks": lt.nn.ElasticDeformation(ALPHA, SIGMA),
            "torchvision": each(v2.ElasticTransform(ALPHA, SIGMA)),
        },
        "noise": {
            "lightning_tricks": lt.nn.AdditiveNoise(0.1),
            "torchvision": each(v2.GaussianNoise(0.0, 0.1, clip=False)),
        },
    }
    if importlib.util.find_spec("kornia") is not None:
        import kornia.augmentation as K

        size = 2 * int(4 * SIGMA + 0.5) + 1
        found["affine"]["kornia"] = K.RandomAffine(DEGREES, (SHIFT, SHIFT), SCALE, shear, p=1.0)
        found["elastic"]["kornia"] = K.RandomElasticTransform((size, size), (SIGMA, SIGMA), (ALPHA, ALPHA), p=1.0)
        found["noise"]["kornia"] = K.RandomGaussianNoise(0.0, 0.1, p=1.0)
    return found


def seconds(augment: Augment, x: Tensor, rounds: int) -> float:
    """The fastest of some, after one that does not count."""
    best = float("inf")
    for index in range(rounds + 1):
        start = time.perf_counter()
        augment(x)
        if x.is_cuda:
            torch.cuda.synchronize()
        if index:
            best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(describe())
    x = torch.rand(options.batch, options.channels, options.side, options.side, device=options.device)
    for kind, ways in contestants().items():
        times = {name: seconds(augment, x, options.rounds) for name, augment in ways.items()}
        ours = times["lightning_tricks"]
        print(f"{kind:8}", "   ".join(f"{name} {t * 1e3:8.2f} ms ({t / ours:5.1f} x)" for name, t in times.items()))


if __name__ == "__main__":
    main()
