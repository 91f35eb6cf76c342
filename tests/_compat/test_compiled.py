"""What a compiled module was before."""

import torch
from torch import nn

from lightning_tricks._compat.compiled import original_of


def test_the_original_of_a_compiled_module():
    plain = nn.Linear(2, 2)
    assert original_of(torch.compile(plain, backend="eager")) is plain
    assert original_of(plain) is plain
