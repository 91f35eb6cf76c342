"""Lightning under both of its names."""

import lightning.pytorch as L
import pytest
import torch

from lightning_tricks._compat import lightning as compat


def test_callbacks_belong_to_both_class_trees():
    assert issubclass(compat.Callback, L.Callback)
    other = pytest.importorskip("pytorch_lightning", reason="an installation may lack the second name")
    assert issubclass(compat.Callback, other.Callback)
    assert compat.is_lightning_module(L.LightningModule())
    assert compat.is_lightning_module(other.LightningModule())
    assert not compat.is_lightning_module(torch.nn.Linear(1, 1))


def test_a_warning_is_said_once():
    with pytest.warns(UserWarning, match="of a test of its own"):
        compat.warn_once("of a test of its own")
    compat.warn_once("of a test of its own")  # a second warning would be an error here
