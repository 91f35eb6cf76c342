import pytest
import torch
from torch.overrides import TorchFunctionMode

from lightning_tricks.probes.watch.error_guard import Careful


def test_exceptions_are_noted_and_interrupts_go_on():
    not_seen = {}
    with Careful(not_seen, "layer"):
        raise ValueError("no such shape")
    assert not_seen == {"layer": "could not be read: ValueError: no such shape"}
    with pytest.raises(KeyboardInterrupt), Careful(not_seen, "other"):
        raise KeyboardInterrupt
    assert "other" not in not_seen


def test_no_function_mode_sees_what_is_done_inside():
    class Seeing(TorchFunctionMode):
        calls = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            return func(*args, **(kwargs or {}))

    x, mode = torch.ones(2), Seeing()
    with mode:
        with Careful({}, "layer"):
            torch.relu(x)
        assert mode.calls == 0
        torch.relu(x)
    assert mode.calls == 1
