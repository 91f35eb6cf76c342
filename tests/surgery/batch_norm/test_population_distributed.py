"""Two processes (gloo), uneven data: the same bits on both, and the statistics of one process with everything."""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from lightning_tricks.init.report import Report
from lightning_tricks.nn import BatchRenorm1d
from lightning_tricks.surgery.batch_norm.population import update_population_statistics


def data():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    return (x * torch.linspace(1, 4, 50)[:, None] + 2).split(10)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2), nn.BatchNorm1d(2))


def failing(batches):
    yield from batches[:1]
    raise OSError("the disk is gone")


def worker(rank, port, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    mine = data()[:3] if rank == 0 else data()[3:]
    found = {}
    model = nn.parallel.DistributedDataParallel(network())
    found["pooled"] = update_population_statistics(model, mine).module.state_dict()
    found["paper"] = update_population_statistics(network(), mine, estimator="paper").state_dict()
    found["consistent"] = update_population_statistics(network(), mine, consistent=True).state_dict()
    found["one is empty"] = update_population_statistics(network(), data() if rank else []).state_dict()
    report = Report()
    update_population_statistics(network(), data(), num_samples=40, report=report)
    found["num_samples"] = report.changed[0].values["values"]
    report = Report()
    synchronized = nn.Sequential(BatchRenorm1d(3, synchronize=True))
    update_population_statistics(synchronized, mine, report=report)  # 3 batches here, 2 there: no one waits for ever
    found["in step"] = report.changed[0].values["batches"]
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        update_population_statistics(model, failing(mine) if rank else mine)
    except (OSError, RuntimeError) as error:
        found["error"] = str(error)
    found["restored"] = all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    results[rank] = found
    dist.destroy_process_group()


def test_two_processes_are_one():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(worker, (port, results), nprocs=2)
        first, second = results[0], results[1]
    expected = {
        "pooled": update_population_statistics(network(), data()),
        "paper": update_population_statistics(network(), data(), estimator="paper"),
        "consistent": update_population_statistics(network(), data(), consistent=True),
        "one is empty": update_population_statistics(network(), data()),
    }
    for kind, model in expected.items():
        for key, value in model.state_dict().items():
            assert torch.equal(first[kind][key], second[kind][key]), (kind, key)
            torch.testing.assert_close(first[kind][key], value, rtol=1e-6, atol=1e-7)
    assert first["num_samples"] == second["num_samples"] == 40
    assert first["in step"] == second["in step"] == 4
    assert second["error"] == "the disk is gone"
    assert "another process failed" in first["error"]
    assert first["restored"]
    assert second["restored"]
