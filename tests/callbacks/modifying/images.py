"""Images with what is marked in them, and an augmentation that mirrors them."""

import torch

import lightning_tricks as lt

FLIP = {"degrees": 0.0, "translate": 0.0, "scale": (1.0, 1.0), "shear": 0.0, "flip": 1.0}
X = torch.randn(3, 2, 6, 6)
MASK = torch.randint(0, 9, (3, 6, 6))
BOXES = torch.tensor([[1.0, 0.0, 3.0, 2.0]]).expand(3, 1, 4)
POINTS = torch.tensor([[[0.0, 1.0], [4.0, 5.0]]]).expand(3, 2, 2)


def flip():
    """Exchanges left and right of every image, exactly enough to be told from all else."""
    return lt.nn.RandomAffine(**FLIP)


def close(one, two):
    torch.testing.assert_close(one, two, rtol=0, atol=1e-4)
