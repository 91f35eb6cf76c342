"""Backward passes are told to who asks, and nothing is left when nobody does any more."""

import torch

from lightning_tricks.watch.backward import hear_backward

ORIGINAL = torch.autograd.backward


class Listener:
    def __init__(self):
        self.told = []

    def before_backward(self, losses, *given, **more):
        self.told.append(losses)

    def after_backward(self):
        self.told.append("after")


def test_methods_and_functions_are_heard():
    listener, weight = Listener(), torch.ones(1, requires_grad=True)
    end = hear_backward(listener)
    first, second = weight.sum(), weight.sum()
    first.backward()
    torch.autograd.backward([second])
    end()
    weight.sum().backward()
    assert listener.told[0] is first
    assert listener.told[1] == listener.told[3] == "after"
    assert listener.told[2][0] is second
    assert len(listener.told) == 4
    assert torch.autograd.backward is ORIGINAL


def test_the_last_to_go_leaves_nothing():
    ends = [hear_backward(Listener()) for _ in range(2)]
    ends[0]()
    assert torch.autograd.backward is not ORIGINAL
    ends[0]()
    ends[1]()
    assert torch.autograd.backward is ORIGINAL


def test_what_somebody_else_has_put_there_since_stays_and_is_told_nothing(monkeypatch):
    monkeypatch.setattr(torch.autograd, "backward", ORIGINAL)
    listener, heard = Listener(), []
    end = hear_backward(listener)
    below = torch.autograd.backward

    def others(*args, **kwargs):
        heard.append(1)
        below(*args, **kwargs)

    torch.autograd.backward = others
    end()
    assert torch.autograd.backward is others
    weight = torch.ones(1, requires_grad=True)
    weight.sum().backward()
    assert (listener.told, heard) == ([], [1])
    again = Listener()
    end = hear_backward(again)  # one above the other: told once
    weight.sum().backward()
    assert len(again.told) == 2
    end()
