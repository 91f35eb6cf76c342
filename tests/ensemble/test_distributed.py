"""Several processes, by the members' batches or by the members: the weights that one process gives."""

import pytest
import torch

from lightning_tricks.ensemble import BaggingEnsemble, BootstrapDataModule
from tests.ensemble.trainings import Plain, data, difference, trainer
from tests.two_processes import run_group, run_two

SCRIPT = """
import os, warnings, torch
warnings.simplefilter("ignore")
from tests.ensemble.test_distributed import KINDS, Smooth, train
from tests.ensemble.trainings import Plain

ensemble, _ = train("vmap", "data", Plain, devices=2, strategy="ddp", use_distributed_sampler=False)
torch.save([member.state_dict() for member in ensemble.networks], f"norm_{os.environ['LOCAL_RANK']}.pt")
for backend, parallel in KINDS:
    ensemble, run = train(backend, parallel, Smooth, devices=2, strategy="ddp", use_distributed_sampler=False)
    weights = [member.state_dict() for member in ensemble.networks]
    torch.save((weights, run.global_step), f"{backend}_{parallel}_{os.environ['LOCAL_RANK']}.pt")
"""
KINDS = [(backend, parallel) for backend in ("vmap", "loop") for parallel in ("data", "members")] + [("auto", "data")]


class Smooth(Plain):
    """Without batch norm, whose statistics are those of a process's own part of the batch."""

    def __init__(self):
        super().__init__(
            torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double(),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        )


def train(backend, parallel, make, members=3, **options):
    """Three members, sets of 41 draws in batches of 16: the last batch has an odd number."""
    ensemble = BaggingEnsemble(make, members, task="classification", backend=backend, seed=5, parallel=parallel)
    module = BootstrapDataModule(data(41), members, 16, seed=2, parallel=parallel)
    run = trainer(max_epochs=3, gradient_clip_val=0.2, **options)
    run.fit(ensemble, module)
    return ensemble, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes left their members."""
    made = tmp_path_factory.mktemp("ranks")
    run_two(SCRIPT, made)
    return made


@pytest.mark.parametrize(("backend", "parallel"), KINDS)
def test_two_processes_are_one(folder, backend, parallel):
    alone, run = train("loop", parallel, Smooth)
    for rank in range(2):
        weights, steps = torch.load(folder / f"{backend}_{parallel}_{rank}.pt", weights_only=True)
        assert steps == run.global_step
        members = [Smooth() for _ in weights]
        for member, state in zip(members, weights, strict=True):
            member.load_state_dict(state)
        assert difference(members, alone.networks) < 1e-12


def test_statistics_of_batch_norm_are_the_same_in_both(folder):
    one, two = (torch.load(folder / f"norm_{rank}.pt", weights_only=True) for rank in range(2))
    for here, there in zip(one, two, strict=True):
        assert all(torch.equal(value, there[name]) for name, value in here.items())
        assert float(here["net.1.running_var"].sub(1).abs().max()) > 0.01


FOUR = """
import os, warnings, pytest, torch
warnings.simplefilter("ignore")
from tests.ensemble.test_distributed import Smooth, train

options = {"devices": 4, "strategy": "ddp", "use_distributed_sampler": False}
ensemble, run = train("vmap", "members", Smooth, members=6, **options)
torch.save([member.state_dict() for member in ensemble.networks], f"four_{os.environ['LOCAL_RANK']}.pt")
with pytest.raises(ValueError, match="3 members cannot be shared by 4 processes"):
    train("vmap", "members", Smooth, members=3, **options)
"""


def test_four_processes_are_one_and_need_a_member_each(tmp_path):
    run_group(FOUR, tmp_path, 4)
    alone, _ = train("loop", "members", Smooth, members=6)
    for rank in range(4):
        members = [Smooth() for _ in alone.networks]
        for member, state in zip(members, torch.load(tmp_path / f"four_{rank}.pt", weights_only=True), strict=True):
            member.load_state_dict(state)
        assert difference(members, alone.networks) < 1e-12
