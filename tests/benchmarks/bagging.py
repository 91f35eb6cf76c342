"""K networks: one fit of a BaggingEnsemble against K fits, a loop by hand, a stack by hand and torchensemble.

python tests/benchmarks/bagging.py [--members 2 8 32] [--networks mlp] [--epochs 5] [--rounds 5]
python tests/benchmarks/bagging.py --against-one --accelerator gpu --members 64     K networks against one of them
python tests/benchmarks/bagging.py --memory       bytes of weights and optimiser state against those of one network

torchensemble is timed where it is installed. All run in turns; seconds are medians over the rounds. "stack in a
Trainer" is the stack by hand as a LightningModule without a hook: the least that a fit with Lightning costs.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as L
import torch
from bagging_competitors import (
    BATCH,
    NETWORKS,
    Member,
    digits,
    images,
    one_fit,
    ours,
    peer,
    plain_loop,
    separate_fits,
    stack_by_hand,
    stack_in_a_trainer,
    trainer,
)
from machine import describe
from race import keep_freed_memory
from torch.utils.data import DataLoader, TensorDataset

import lightning_tricks.ensemble as le


def timed(
    competitors: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each, in turns."""
    seconds: dict[str, list[float]] = {key: [] for key in competitors}
    for _ in range(rounds):
        for key, run in competitors.items():
            start = clock()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[key].append(clock() - start)
    return seconds


def chosen(competitors: dict[str, Callable[[], object]], options: Any) -> dict[str, Callable[[], object]]:
    """Those that were asked for; always the one that the others are compared with."""
    first = next(iter(competitors))
    return {key: run for key, run in competitors.items() if not options.only or key == first or key in options.only}


def compare(name: str, members: int, options: Any, data: TensorDataset, clock: Callable[[], float]) -> None:
    make, used, epochs, device = NETWORKS[name], [""], options.epochs, options.device

    def auto() -> None:
        used[0] = ours(make, members, epochs, data, "auto", device)

    competitors: dict[str, Callable[[], object]] = {
        "ours": auto,
        "ours, vmap": lambda: ours(make, members, epochs, data, "vmap", device),
        "ours, loop": lambda: ours(make, members, epochs, data, "loop", device),
        "K Lightning fits": lambda: separate_fits(make, members, epochs, data, device),
        "plain loop": lambda: plain_loop(make, members, epochs, data, device),
    }
    if name == "mlp":
        competitors["stack by hand"] = lambda: stack_by_hand(members, epochs, data, device)
        competitors["stack in a Trainer"] = lambda: stack_in_a_trainer(members, epochs, data, device)
    if importlib.util.find_spec("torchensemble"):
        competitors["torchensemble"] = lambda: peer(make, members, epochs, data)
    seconds = timed(chosen(competitors, options), options.rounds, clock)
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    least = {key: min(values) for key, values in seconds.items()}
    for key in seconds:
        label = f"{key} ({used[0]})" if key == "ours" else key
        ratios = f"{middle[key] / middle['ours']:8.2f} x ours{least[key] / least['ours']:8.2f} x by minima"
        print(f"{name:12s}{members:4d}  {label:20s}{middle[key]:9.3f} s{ratios}", flush=True)


class StepTime(L.Callback):
    """Milliseconds of a training step from the second epoch on, without the choice of a backend and other starts."""

    def __init__(self) -> None:
        self.start, self.before, self.found = 0.0, 0, float("nan")

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            self.start, self.before = self._now(), trainer.global_step

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_step > self.before:
            self.found = 1e3 * (self._now() - self.start) / (trainer.global_step - self.before)

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def against_one(name: str, members: int, options: Any, data: TensorDataset, clock: Callable[[], float]) -> None:
    """K networks in one fit against one of them in a fit, its tensors on the device, too: whole fits, and steps."""
    make, epochs, device = NETWORKS[name], options.epochs, options.device
    steps: dict[str, list[float]] = {}

    def stepping(key: str, run: Callable[..., object], *given: Any) -> Callable[[], None]:
        def fit() -> None:
            step = StepTime()
            run(*given, epochs, data, *(["vmap"] if run is ours else []), device, callbacks=[step])
            steps.setdefault(key, []).append(step.found)

        return fit

    competitors: dict[str, Callable[[], object]] = {
        "one": stepping("one", one_fit, make),
        "ours": stepping("ours", ours, make, members),
        "one, DataLoader": stepping("one, DataLoader", separate_fits, make, 1),
        "one by hand": lambda: plain_loop(make, 1, epochs, data, device),
    }
    if name == "mlp":
        competitors["stack by hand"] = lambda: stack_by_hand(members, epochs, data, device)
        competitors["stack in a Trainer"] = stepping("stack in a Trainer", stack_in_a_trainer, members)
    competitors = chosen(competitors, options)
    for run in competitors.values():  # what comes first pays for the device's start, and for its kernels
        run()
    steps.clear()
    seconds = timed(competitors, options.rounds, clock)
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    step = {key: statistics.median(values) for key, values in steps.items()}
    for key in competitors:
        count = members if key.startswith(("ours", "stack")) else 1
        shown = f"{step[key]:9.3f} ms a step{step[key] / step['one']:7.2f} x one" if key in step else ""
        ratio = f"{middle[key] / middle['one']:7.2f} x one"
        print(f"{name:12s}{count:4d}  {key:20s}{middle[key]:9.3f} s{ratio}{shown}", flush=True)


class Bytes(L.Callback):
    """Counts what a training holds, every storage once."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        held = [*pl_module.parameters()]
        for optimizer in trainer.optimizers:
            held += [value for group in optimizer.param_groups for value in group["params"]]
            held += [value for state in optimizer.state.values() for value in state.values()]
        storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in held}
        self.total = sum(storages.values())


def memory(data: TensorDataset) -> None:
    for name, make in NETWORKS.items():
        one = Bytes()
        trainer(1, callbacks=[one]).fit(Member(make), DataLoader(data, batch_size=BATCH))
        for members in (2, 8, 32):
            counted = Bytes()
            ensemble = le.BaggingEnsemble(lambda make=make: Member(make), members, task="classification")
            trainer(1, callbacks=[counted]).fit(ensemble, le.BootstrapDataModule(data, members, BATCH))
            print(f"{name:12s}{members:4d} members: {counted.total / one.total:7.3f} x one network", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=["mlp"])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="of the competitors, as they are printed")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--against-one", action="store_true", help="K networks against one of them")
    parser.add_argument("--cpu-time", action="store_true", help="of the process: for a machine that others use, too")
    parser.add_argument("--memory", action="store_true", help="count bytes instead of seconds")
    options = parser.parse_args(arguments)
    options.device = "cuda" if options.accelerator == "gpu" else "cpu"
    warnings.simplefilter("ignore")
    for logger in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    print(describe())
    keep_freed_memory()  # as in the other benchmarks: pages fetched again would be charged to whoever comes next
    if options.memory:
        memory(digits())
        return
    clock = time.process_time if options.cpu_time else time.perf_counter
    data = images() if options.against_one else digits()
    for name in options.networks:
        for members in options.members:
            (against_one if options.against_one else compare)(name, members, options, data, clock)


if __name__ == "__main__":
    main()
