"""Statistics over two processes (gloo) against one process that has the whole batch."""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from lightning_tricks.nn.batch_norm import BatchRenorm1d, GhostBatchNorm1d, MeanOnlyBatchNorm1d


def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 4, generator=generator) * torch.linspace(0.5, 2, 12)[:, None] + 3


def layers():
    limits = {"r_max": 1.2, "d_max": 0.5, "warmup_steps": 0, "r_max_step": 0, "d_max_step": 0}
    yield BatchRenorm1d(4, momentum=0.3, synchronize=True, **limits)
    yield MeanOnlyBatchNorm1d(4, momentum=0.3, synchronize=True)


def gradients_of(model, x, total):
    x = x.clone().requires_grad_()
    loss = (model(x) * torch.linspace(-1, 1, 4)).pow(3).sum() / total
    loss.backward()
    return x.grad, [parameter.grad for parameter in model.parameters()]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def worker(rank, port, results):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    x = batch()[:7] if rank == 0 else batch()[7:]  # uneven on purpose
    found = []
    for layer in layers():
        model = nn.parallel.DistributedDataParallel(layer, broadcast_buffers=False)
        # DDP averages over the processes; a loss divided by half the total makes the average the joint gradient.
        grad, parameters = gradients_of(model, x, total=12 / 2)
        found.append((grad / 2, parameters, layer.state_dict()))
    ghost = GhostBatchNorm1d(4, momentum=0.3, ghost_size=3, synchronize=True)
    ghost(batch()[:6] if rank == 0 else batch()[6:])
    found.append(ghost.state_dict())
    results[rank] = found
    dist.destroy_process_group()


def test_two_processes_are_one():
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(worker, (free_port(), results), nprocs=2)
        first, second = results[0], results[1]
    for one, two, layer in zip(first, second, layers(), strict=False):
        grad, parameters = gradients_of(layer, batch(), total=12)
        torch.testing.assert_close(torch.cat([one[0], two[0]]), grad, rtol=1e-5, atol=1e-6)
        for rank in (one, two):
            torch.testing.assert_close(rank[1], parameters, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(dict(rank[2]), dict(layer.state_dict()), rtol=1e-5, atol=1e-6)
    # Ghost groups stay on their process; only the running statistics are averaged over the processes.
    means = torch.stack([batch()[:6].mean(0), batch()[6:].mean(0)]).mean(0)
    for rank in (first, second):
        torch.testing.assert_close(rank[-1]["running_mean"], 0.3 * means)
    torch.testing.assert_close(dict(first[-1]), dict(second[-1]))
