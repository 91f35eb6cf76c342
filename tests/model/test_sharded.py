"""FSDP2 in two processes: the training is the plain one, and both have the history of the joint batch."""

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

import lightning_tricks as lt
from lightning_tricks.model.sharded import Gathered, is_by_rows, is_sharded, local
from tests.callbacks.trainings import Classifier, batches, fit
from tests.two_processes import run_two
from tests.versions import TORCH

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
SCRIPT = """
import json, os, warnings
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
import lightning_tricks as lt
from tests.model.test_sharded import Sharded, whole
from tests.callbacks.trainings import batches, fit, same

warnings.simplefilter("ignore")
rank = int(os.environ["LOCAL_RANK"])
data = [tuple(part.chunk(2)[rank] for part in batch) for batch in batches(3, size=16)]

def run(looking):
    module = Sharded()
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    fit(module, looking, data, devices=2, strategy=strategy, use_distributed_sampler=False)
    return module.losses, whole(module), torch.get_rng_state()

doctor = lt.TrainingDoctor(every_n_steps=1, max_patterns=None, report=False)
equal = same(run([]), run([lt.GradientFlowMonitor(every_n_steps=1), doctor]))
with open(f"rank{rank}.json", "w") as file:
    json.dump([equal, [snapshot.to_dict() for snapshot in doctor.history]], file)
"""


class Product(nn.Module):
    """A weight without a layer."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(12, 12) / 4)

    def forward(self, x):
        return x @ self.matrix


class Whole(Classifier):
    def __init__(self):
        super().__init__(nn.Identity())

    def configure_model(self):
        if isinstance(self.net, nn.Identity):
            torch.manual_seed(0)
            layers = nn.Linear(6, 12), nn.ReLU(), Product(), nn.LayerNorm(12), nn.Tanh(), nn.Linear(12, 3)
            self.net = nn.Sequential(*layers)
            self.shard()

    def shard(self):
        pass


class Sharded(Whole):
    def shard(self):
        from torch.distributed.fsdp import fully_shard

        mesh = self.device_mesh["data_parallel"]
        for layer in self.net:
            if next(layer.parameters(), None) is not None:
                fully_shard(layer, mesh=mesh)
        fully_shard(self.net, mesh=mesh)


def whole(module):
    return [parameter.full_tensor() for parameter in module.parameters()]


@pytest.mark.skipif(
    TORCH <= (2, 6), reason="fully_shard of torch 2.6 does not run on a CPU: its streams there record no events"
)
def test_training_and_history_are_those_of_one_process(tmp_path):
    run_two(SCRIPT, tmp_path)
    (equal, first), (also, second) = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert equal
    assert also
    assert first == second
    alone = lt.TrainingDoctor(every_n_steps=1, max_patterns=None, report=False)
    fit(Whole(), [lt.GradientFlowMonitor(every_n_steps=1), alone], batches(3, size=16))
    for ours, snapshot in zip(first, alone.history, strict=True):
        joint = lt.Snapshot.from_dict(ours)
        assert joint.loss == pytest.approx(snapshot.loss, rel=1e-5)
        assert set(joint.not_seen) <= {*snapshot.not_seen, "preflight"}
        for kind in ("activations", "weighted", "parameters"):
            for one, other in zip(getattr(joint, kind), getattr(snapshot, kind), strict=True):
                assert one.name == other.name
                given = other.measures()
                not_of_parts = ["mean_drift"] if kind == "parameters" else []  # asks for whole rows and biases
                if one.name == "net.2.matrix":  # whose units are columns
                    not_of_parts.append("update_coherence")
                assert all(math.isnan(one.measures()[name]) for name in not_of_parts)
                measured = one.measures() | {name: given[name] for name in not_of_parts}
                assert measured == pytest.approx(given, rel=1e-3, abs=1e-6, nan_ok=True)
        assert [record.layer for record in joint.parameters] == [record.layer for record in snapshot.parameters]


@dataclasses.dataclass
class Placement:
    dimension: int | None

    def is_replicate(self):
        return self.dimension is None

    def is_shard(self, dimension):
        return self.dimension == dimension


class Part(torch.Tensor):
    """Of a kind of its own, as the parts of FSDP2 are."""


def test_parts_are_rows_or_they_are_not():
    whole, part = torch.ones(2, 3), torch.ones(2, 3).as_subclass(Part)
    assert not is_sharded(whole)
    assert local(whole) is whole
    assert not is_sharded(part)
    part.to_local = lambda: torch.zeros(1, 3)
    assert is_sharded(part)
    assert local(part).shape == (1, 3)
    for dimensions, rows in (((0,), True), ((None, 0), True), ((1,), False), ((0, 1), False)):
        part.placements = [Placement(dimension) for dimension in dimensions]
        assert is_by_rows(part, torch.ones(2, 3)) is rows
        assert not is_by_rows(part, torch.ones(3, 2))
        assert not is_by_rows(part, torch.ones(3, 2).T)


def test_a_running_module_tells_the_name_of_what_it_was_lent():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].weight = nn.Parameter(torch.zeros(2, 2).as_subclass(Part))
    net[0].weight.to_local = lambda: net[0].weight
    gathered = Gathered(net)
    net[0].weight = nn.Parameter(torch.ones(2, 2))
    assert gathered.name(net[0].weight, "0") == "0.weight"
    assert gathered.name(net[0].weight[0], "0") == "0.weight"  # a view
    assert gathered.name(net[0].weight, "1") is None
    assert gathered.name(torch.ones(2, 2), "0") is None
