"""One optimiser over a stack: what is moved there, what is refused, and clipping by each member's own norm."""

import copy
import functools

import pytest
import torch
from torch import nn

from lightning_tricks.ensemble.mapping.stack import Stack
from lightning_tricks.ensemble.training.optimizers import clip, move_to_stack, optimizers_and_schedulers
from tests.ensemble.trainings import Plain, Smooth, difference, fit, separate
from tests.versions import TORCH


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_is_torchs_for_each_member(algorithm):
    stacked = [torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64) * 0.01]
    stacked[0][1] *= 0.001  # the second member's gradient is small enough
    expected = []
    for row in range(3):
        values = [nn.Parameter(torch.zeros_like(gradient[row])) for gradient in stacked]
        for value, gradient in zip(values, stacked, strict=True):
            value.grad = gradient[row].clone()
        if algorithm == "norm":
            nn.utils.clip_grad_norm_(values, 0.5)
        else:
            nn.utils.clip_grad_value_(values, 0.5)
        expected.append([value.grad for value in values])
    clip(stacked, 0.5, algorithm)
    for row in range(3):
        for gradient, other in zip(stacked, expected[row], strict=True):
            assert torch.allclose(gradient[row], other, rtol=1e-12)


def test_what_configure_optimizers_may_return():
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    plan = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    entry = {"scheduler": plan, "interval": "step"}
    forms = [
        ([optimizer], [plan]),
        ([optimizer], [entry]),
        {"optimizer": optimizer, "lr_scheduler": plan, "monitor": "loss"},
        ({"optimizer": optimizer, "lr_scheduler": entry},),
    ]
    for form in forms:
        optimizers, schedulers = optimizers_and_schedulers(form)
        assert optimizers == [optimizer]
        assert schedulers[0]["scheduler"] is plan
    assert optimizers_and_schedulers(forms[1])[1][0]["interval"] == "step"
    assert optimizers_and_schedulers(forms[2])[1][0]["monitor"] == "loss"
    assert optimizers_and_schedulers(None) == ([], [])
    assert optimizers_and_schedulers([optimizer, optimizer])[0] == [optimizer, optimizer]


def test_groups_keep_their_settings_and_fused_is_used_where_nothing_was_said():
    members = [nn.Linear(2, 16) for _ in range(4)]
    optimizer = torch.optim.Adam([{"params": [members[0].weight], "lr": 0.5}, {"params": [members[0].bias]}], lr=0.1)
    said = torch.optim.Adam(copy.deepcopy(members)[0].parameters(), foreach=False)
    move_to_stack(optimizer, Stack(members))
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert optimizer.param_groups[0]["params"][0].shape == (4, 2, 16)
    assert all(group["fused"] for group in optimizer.param_groups)
    other = [nn.Linear(2, 16) for _ in range(4)]
    said.param_groups[0]["params"] = list(other[0].parameters())
    move_to_stack(said, Stack(other))
    assert not said.param_groups[0]["fused"]


def test_a_foreign_tensor_in_the_optimizer():
    members = [nn.Linear(2, 3) for _ in range(2)]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match="no parameter of the member"):
        move_to_stack(optimizer, Stack(members))


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.02, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.02),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.02),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1.0),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.02),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.1, t0=2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_optimizer_over_the_stack_is_k_optimizers(name):
    make = functools.partial(Smooth, OPTIMIZERS[name])
    ensemble, _ = fit(make, "vmap")
    assert ensemble.used_backend == "vmap"
    assert difference(ensemble.networks, separate(make)[0]) < 1e-10


@pytest.mark.parametrize("backend", ["vmap", "loop"])
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_per_member_and_accumulate(backend, algorithm):
    make = functools.partial(Smooth, OPTIMIZERS["sgd"])
    options = {"gradient_clip_val": 0.05, "gradient_clip_algorithm": algorithm, "accumulate_grad_batches": 2}
    ensemble, _ = fit(make, backend, **options)
    assert difference(ensemble.networks, separate(make, **options)[0]) < 1e-10


class Sparse(Plain):
    """Embedded tokens with sparse gradients."""

    def __init__(self, optimizer):
        super().__init__(nn.Linear(4, 3), optimizer)
        self.e = nn.Embedding(5, 4, sparse=True)
        self.double()

    def forward(self, x):
        return self.net(self.e((x.abs() * 3).long().clamp(max=4)).mean(1))


@pytest.mark.parametrize("options", [{}, {"gradient_clip_val": 0.05}, {"accumulate_grad_batches": 2}], ids=str)
@pytest.mark.parametrize("kind", ["SGD", "Adagrad"])
@pytest.mark.filterwarnings("ignore:.*is trained by the loop", "ignore:Sparse invariant checks")
def test_sparse_gradients(kind, options):
    """The fused implementation, which is taken where nothing was said, refuses them."""
    if "gradient_clip_val" in options and TORCH < (2, 7):
        pytest.skip("torch 2.6 has no norm of a sparse gradient")
    momentum = {"momentum": 0.9} if kind == "SGD" and not options else {}

    def make():
        return Sparse(functools.partial(getattr(torch.optim, kind), lr=0.1, **momentum))

    assert difference(fit(make, **options)[0].networks, separate(make, **options)[0]) < 1e-10
