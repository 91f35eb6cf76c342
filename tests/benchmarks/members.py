"""An ensemble shared by its members between processes: its weights and its time against those of one process.

    python -m tests.benchmarks.members [--members 32] [--processes 1 2 4] [--steps 200]

Each member is a network of 26,000 weights on 64 inputs. Of every number of processes, by gloo on one machine: seconds
of the second of two fits, from before the Trainer to after it; seconds of the processor in the busiest process; and the
largest difference of any weight from the one process.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import lightning_tricks as lt
from tests.benchmarks.machine import describe
from tests.two_processes import run_group

BATCH = 64
SCRIPT = """
import json, os, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from tests.benchmarks.members import train

arguments = {arguments}
train(**arguments)
weights, *times = train(**arguments)
rank = os.environ["LOCAL_RANK"]
torch.save(weights, f"weights{{rank}}.pt")
with open(f"times{{rank}}.json", "w") as file:
    json.dump(times, file)
"""


class Member(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        layers = nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        self.net = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-3)


def train(members: int, steps: int, processes: int) -> tuple[list[Tensor], float, float]:
    """The weights of all members after a fit, seconds of the clock and of this process's processor."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH * 50, 64, generator=generator)
    data = TensorDataset(x, torch.randint(10, (len(x),), generator=generator))
    ensemble = lt.BaggingEnsemble(Member, members, task="classification", seed=5, parallel="members")
    loader = lt.BootstrapDataModule(data, members, BATCH, seed=2, parallel="members")
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    several = {"strategy": "ddp", "use_distributed_sampler": False} if processes > 1 else {}
    begun, busy = time.perf_counter(), time.process_time()
    L.Trainer(accelerator="cpu", devices=processes, max_steps=steps, max_epochs=-1, **several, **quiet).fit(
        ensemble, loader
    )
    times = time.perf_counter() - begun, time.process_time() - busy
    return [torch.cat([p.detach().flatten() for p in net.parameters()]) for net in ensemble.networks], *times


def measured(members: int, steps: int, processes: int) -> tuple[list[list[Tensor]], list[list[float]]]:
    """Weights and times in each of the processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = {"members": members, "steps": steps, "processes": processes}
        run_group(SCRIPT.format(arguments=arguments), folder, processes, limit=3600.0)
        weights = [torch.load(folder / f"weights{rank}.pt", weights_only=True) for rank in range(processes)]
        return weights, [json.loads((folder / f"times{rank}.json").read_text()) for rank in range(processes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=32)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    print(describe())
    (alone,), _ = first = measured(options.members, options.steps, 1)
    for processes in options.processes:
        weights, times = first if processes == 1 else measured(options.members, options.steps, processes)
        difference = max(float((a - b).abs().max()) for each in weights for a, b in zip(each, alone, strict=True))
        clock, busy = (max(each) for each in zip(*times, strict=True))
        print(
            f"{processes} processes   {clock:6.2f} s   processor {busy:6.2f} s   difference {difference:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
