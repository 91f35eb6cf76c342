"""Members that differ in what is no weight are looped: in a function, in hyperparameters, in what is frozen."""

import pytest
import torch
from torch import nn

from lightning_tricks.ensemble.mapping.backend import why_not_mappable
from tests.ensemble.trainings import Smooth, difference, fit, separate


class OfItsOwn(Smooth):
    """Members that differ in a function; a different one each time."""

    made = 0
    kinds = (torch.relu, torch.tanh, torch.sigmoid)

    def __init__(self):
        super().__init__()
        self.act = self.kinds[OfItsOwn.made % 3]
        OfItsOwn.made += 1

    def forward(self, x):
        return self.act(self.net(x))


def test_members_that_differ_in_a_function():
    OfItsOwn.made = 0
    with pytest.warns(UserWarning, match="the members differ in attribute act"):
        ensemble, _ = fit(OfItsOwn)
    assert difference(ensemble.networks, separate(OfItsOwn)[0]) < 1e-10


class Dropping(OfItsOwn):
    """Each member drops another share, which stands in its hyperparameters: a step without dropout does not show it."""

    def __init__(self):
        super().__init__()
        self.act = nn.Tanh()
        self.save_hyperparameters({"p": [0.0, 0.9, 0.9][(OfItsOwn.made - 1) % 3]})

    def forward(self, x):
        return nn.functional.dropout(self.act(self.net(x)), self.hparams.p)


def test_members_that_differ_in_their_hyperparameters():
    OfItsOwn.made = 0
    with pytest.warns(UserWarning, match="the members differ in attribute _hparams"):
        fit(Dropping)


class Hooked(Smooth):
    """The same hook in each member, under another number."""

    def __init__(self):
        super().__init__()
        next(iter(self.children())).register_forward_hook(self.hook, with_kwargs=True)
        self.save_hyperparameters({"width": 3})

    @staticmethod
    def hook(module, args, kwargs, output):
        return output * 1.0


def test_hooks_and_equal_hyperparameters_are_no_difference():
    assert why_not_mappable([Hooked() for _ in range(3)], torch.device("cpu")) is None


class InAList(OfItsOwn):
    def __init__(self):
        super().__init__()
        self.act = [self.act]

    def forward(self, x):
        return self.act[0](self.net(x))


def test_members_that_differ_where_nobody_looks():
    OfItsOwn.made = 0
    with pytest.warns(UserWarning, match="in the loss, member 1"):
        ensemble, _ = fit(InAList)
    assert difference(ensemble.networks, separate(InAList)[0]) < 1e-10


class Changing(Smooth):
    """A hook changes every member by itself, after a first epoch in which they are the same."""

    def __init__(self):
        super().__init__()
        self.scale = 1.0

    def forward(self, x):
        return self.scale * self.net(x)

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            self.scale = 1.0 + float(self.net[0].bias[0].detach())


def test_members_that_differ_from_some_epoch_on():
    with pytest.warns(UserWarning, match=r"the members differ in attribute scale \(from step 3 on\)"):
        ensemble, _ = fit(Changing, "vmap")
    assert difference(ensemble.networks, separate(Changing)[0]) < 1e-10


class Frozen(Smooth):
    """Every second member keeps its first bias, under weight decay."""

    made = 0

    def __init__(self):
        super().__init__(lambda parameters: torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.5))
        self.net[0].bias.requires_grad_(Frozen.made % 2 == 0)
        Frozen.made += 1


@pytest.mark.parametrize("backend", ["auto", "loop"])
def test_members_that_differ_in_what_is_frozen(backend):
    Frozen.made = 0
    if backend == "auto":
        with pytest.warns(UserWarning, match=r"differ in what is frozen .* net\.0\.bias"):
            ensemble, _ = fit(Frozen, backend)
    else:
        ensemble, _ = fit(Frozen, backend)
    Frozen.made = 0
    assert difference(ensemble.networks, separate(Frozen)[0]) < 1e-10
