import pytest
import torch
from torch.overrides import TorchFunctionMode

from lightning_tricks.probes.watch.error_guard import ErrorGuard


class Seeing(TorchFunctionMode):
    calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_exceptions_are_handed_over_and_interrupts_go_on():
    errors = []
    guard = ErrorGuard(errors.append)
    for _ in range(2):
        with guard:
            raise ValueError("no such shape")
    assert [str(error) for error in errors] == ["no such shape"] * 2
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind), guard:
            raise kind
    assert len(errors) == 2


def test_a_listing_guard_says_under_which_name_nothing_was_seen():
    not_seen = {}
    with ErrorGuard.listing(not_seen, "layer"):
        raise ValueError("no such shape")
    assert not_seen == {"layer": "could not be read: ValueError: no such shape"}
    with pytest.raises(KeyboardInterrupt), ErrorGuard.listing(not_seen, "other"):
        raise KeyboardInterrupt
    assert "other" not in not_seen


@pytest.mark.parametrize(("unseen", "calls"), [(True, 0), (False, 1)])
def test_no_function_mode_sees_what_an_unseen_block_does(unseen, calls):
    x, mode = torch.ones(2), Seeing()
    with mode:
        with ErrorGuard(print, unseen=unseen):
            torch.relu(x)
        assert mode.calls == calls
        torch.relu(x)
    assert mode.calls == calls + 1
