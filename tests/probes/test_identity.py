"""A probe never changes a training: losses, weights, optimiser state and random numbers are the same bit for bit."""

import contextlib
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.probes import probe

from . import networks

IMAGES, VECTORS, SEQUENCES = (4, 2, 8, 8), (8, 6), (4, 5, 6)


def plain(model, optimizer, x, target):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), target)
    loss.backward()
    optimizer.step()
    return loss


def with_closure(model, optimizer, x, target):
    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        return loss

    return optimizer.step(closure)


def gradient_penalty(model, optimizer, x, target):
    optimizer.zero_grad()
    x = x.clone().requires_grad_()
    score = model(x)
    (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    loss = F.cross_entropy(score, target) + (slope.norm(dim=1) - 1).square().mean()
    loss.backward()
    optimizer.step()
    return loss


def two_backward_calls(model, optimizer, x, target):
    optimizer.zero_grad()
    output = model(x)
    loss = F.cross_entropy(output, target)
    loss.backward(retain_graph=True)
    output.square().mean().backward()
    optimizer.step()
    return loss


def many_losses(model, optimizer, x, target):
    optimizer.zero_grad()
    output, wanted = model(x), F.one_hot(target, 3).float()
    loss = F.cross_entropy(output, target, torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1, reduction="sum")
    loss = loss + F.binary_cross_entropy_with_logits(output, wanted, pos_weight=torch.full((3,), 2.0))
    loss = loss + F.nll_loss(output.log_softmax(1), target, reduction="none").sum() + F.mse_loss(output.tanh(), wanted)
    loss.backward()
    optimizer.step()
    return loss


def autocast(model, optimizer, x, target):
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(model(x), target)
    loss.backward()
    optimizer.step()
    return loss


def accumulated(model, optimizer, x, target):
    optimizer.zero_grad()
    for part, label in zip(x.chunk(2), target.chunk(2), strict=True):
        loss = F.cross_entropy(model(part), label) / 2
        loss.backward()
    optimizer.step()
    return loss


CASES = {
    "mlp with dropout": (networks.mlp, VECTORS, plain),
    "cnn with batch norm and in-place relu": (networks.cnn, IMAGES, plain),
    "transformer block": (networks.transformer, (4, 5, 8), plain),
    "functional calls": (networks.Functional, VECTORS, plain),
    "lstm": (networks.Recurrent, SEQUENCES, plain),
    "gradient penalty": (networks.mlp, VECTORS, gradient_penalty),
    "gradient penalty of a cnn": (networks.cnn, IMAGES, gradient_penalty),
    "checkpointing": (functools.partial(networks.Checkpointed, False), VECTORS, plain),
    "reentrant checkpointing": (functools.partial(networks.Checkpointed, True), VECTORS, plain),
    "parametrizations": (networks.weight_normed, VECTORS, plain),
    "tied weights": (networks.Tied, None, plain),
    "bf16 autocast, mlp": (networks.mlp, VECTORS, autocast),
    "bf16 autocast, cnn": (networks.cnn, IMAGES, autocast),
    "many losses": (networks.cnn, IMAGES, many_losses),
    "two backward calls": (networks.transformer, (4, 5, 8), two_backward_calls),
    "accumulated": (networks.cnn, IMAGES, accumulated),
    "closure": (networks.mlp, VECTORS, with_closure),
}


def train(make, shape, step, probed, optimizer_class, steps=4):
    torch.manual_seed(0)
    model = make().train()
    optimizer = optimizer_class(model.parameters())
    losses, snapshots = [], []
    for _ in range(steps):
        x = torch.randint(12, (5,)) if shape is None else torch.randn(shape)
        target = torch.randint(3, (len(x),))
        with probe(model, optimizer) if probed else contextlib.nullcontext() as p:
            losses.append(step(model, optimizer, x, target).detach())
        if probed:
            snapshots.append(p.snapshot())
    return losses, model.state_dict(), optimizer.state_dict()["state"], torch.get_rng_state(), snapshots


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("case", CASES)
def test_bit_for_bit(case):
    make, shape, step = CASES[case]
    *without, _ = train(make, shape, step, False, torch.optim.Adam)
    *with_probe, snapshots = train(make, shape, step, True, torch.optim.Adam)
    for one, other in zip(without, with_probe, strict=True):
        assert same(one, other)
    for snapshot in snapshots:
        assert snapshot.weighted
        assert not [reason for reason in snapshot.not_seen.values() if "could not be read" in reason]
        assert all(record.update > 0 for record in snapshot.parameters if record.gradient > 0)


def test_lbfgs_runs_its_line_search_unseen():
    def sgd(parameters):
        return torch.optim.LBFGS(parameters, max_iter=4, line_search_fn="strong_wolfe")

    *without, _ = train(networks.Functional, VECTORS, with_closure, False, sgd, steps=2)
    *with_probe, snapshots = train(networks.Functional, VECTORS, with_closure, True, sgd, steps=2)
    assert all(map(same, without, with_probe))
    assert [r.name for r in snapshots[0].weighted] == ["one", "two", "three"]
    assert snapshots[0].parameters[0].update_coherence > 0
    assert snapshots[0].loss == pytest.approx(float(without[0][0]))


def test_saved_tensor_hooks_of_the_user_see_the_same_tensors():
    def count(probed):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 4), nn.Mish())
        packed = []

        def pack(tensor):
            packed.append(tensor.shape)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            with probe(model) if probed else contextlib.nullcontext():
                model(torch.randn(3, 4)).sum().backward()
        return packed

    assert count(True) == count(False)


class FrozenEncoder(nn.Module):
    """In evaluation mode, with a padding mask: torch runs it by its fused kernels unless a function mode looks on."""

    def __init__(self, kind):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        encoders = {
            "encoder": nn.TransformerEncoder(layer, 2),
            "layer": layer,
            "attention": nn.MultiheadAttention(8, 2, batch_first=True),
        }
        self.kind, self.encoder, self.head = kind, encoders[kind].eval().requires_grad_(False), nn.Linear(8, 1)

    def forward(self, x):
        mask = (torch.arange(x.shape[1]) > 2).expand(x.shape[:2])
        if self.kind == "attention":
            return self.head(self.encoder(x, x, x, key_padding_mask=mask)[0])
        return self.head(torch.relu(self.encoder(x, src_key_padding_mask=mask)))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ["encoder", "layer", "attention"])
def test_what_takes_the_fast_path_of_torch_still_does(kind):
    def losses(probed, trained=False):
        torch.manual_seed(0)
        model = FrozenEncoder(kind)
        model.encoder.requires_grad_(trained)
        x = torch.randn(4, 5, 8)
        with probe(model) if probed else contextlib.nullcontext() as p:
            loss = model(x).square().mean()
            loss.backward()
        return loss.detach(), p.snapshot() if probed else None

    (plain, _), (probed, snapshot) = losses(False), losses(True)
    assert torch.equal(plain, probed)
    assert list(snapshot.not_seen) == ["encoder"]
    assert "fast path" in snapshot.not_seen["encoder"]
    assert [record.name for record in snapshot.weighted] == ["head"]  # what comes after is seen again
    assert not [record.name for record in snapshot.parameters if not record.ran]
    _, snapshot = losses(True, trained=True)  # then torch does not take it, and everything inside is seen
    assert not snapshot.not_seen
    assert len(snapshot.weighted) > 1


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_frozen_teacher_beside_the_model_takes_its_fast_path_too():
    teacher, student = FrozenEncoder("encoder").eval().requires_grad_(False), nn.Linear(8, 1)
    x = torch.randn(4, 5, 8)
    wanted = teacher(x)
    with probe(student) as p:
        given = teacher(x)
        (student(x) - given).square().mean().backward()
    assert torch.equal(given, wanted)
    assert len(p.snapshot().weighted) == 1
