"""What processes tell each other: one alone, and two over gloo."""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lightning_tricks.model import processes

CPU = torch.device("cpu")


def test_one_alone():
    assert (processes.process_count(), processes.process_rank(), processes.is_distributed()) == (1, 0, False)
    assert processes.gather_objects("a") == ["a"]
    x = torch.ones(2)
    assert processes.gather_tensors(x)[0] is x
    assert [processes.any_process(flag, CPU) for flag in (True, False)] == [True, False]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def worker(rank, port, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    x = torch.tensor([1.0, 2.0]) * (rank + 1)
    leaf = x.clone().requires_grad_()
    stacked = processes.stack_over_processes(leaf)
    (stacked * torch.tensor([[1.0], [10.0]]) * (rank + 1)).sum().backward()
    results[rank] = {
        "here": (processes.process_count(), processes.process_rank(), processes.is_distributed()),
        "objects": processes.gather_objects({"rank": rank}),
        "tensors": [t.tolist() for t in processes.gather_tensors(x)],
        "any": [processes.any_process(flag, CPU) for flag in (rank == 1, False)],
        "average": [t.tolist() for t in processes.average_over_processes(x, -x)],
        "stacked": stacked.tolist(),
        "gradient": leaf.grad.tolist(),
    }
    dist.destroy_process_group()


def test_two_processes():
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(worker, (free_port(), results), nprocs=2)
        found = [results[rank] for rank in range(2)]
    for rank, entry in enumerate(found):
        assert entry["here"] == (2, rank, True)
        assert entry["objects"] == [{"rank": 0}, {"rank": 1}]
        assert entry["tensors"] == entry["stacked"] == [[1.0, 2.0], [2.0, 4.0]]
        assert entry["any"] == [True, False]
        assert entry["average"] == [[1.5, 3.0], [-1.5, -3.0]]
        # The losses of both processes count: factor 1 of the first and 2 of the second.
        assert entry["gradient"] == [3.0 * 10**rank] * 2
