"""One step of a model, plain and with all monitors: what it leaves, what was seen of it, what it costs."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import hashlib
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor

import lightning_tricks as lt
from tests.callbacks.trainings import Loader, monitors

from .dispatch import counting
from .models.entry import Entry

LONG = 5.0  # seconds of the processor; after such a check nothing is timed
Left = dict[str, Any]  # what a step leaves behind, by name


@dataclasses.dataclass
class Row:
    """What was found of one entry.

    Args:
        group, name: The entry.
        wrong: What is not as it has to be.
        compared: How many things were compared, bit for bit.
        unstable: How many of them two plain steps already leave different.
        seen, counted: Calls of activations and weighted operations in the snapshot, and by the dispatcher.
        not_seen: What the probe lists.
        ratio: Time of a probed step as a multiple of a plain one.
        memory: By how many MB the peak of a probed step is higher.
        seconds: How long all of it took.
        not_run: Why it did not run to its end, where the limits of time or memory ended it.
    """

    group: str
    name: str
    wrong: list[str] = dataclasses.field(default_factory=list)
    compared: int = 0
    unstable: int = 0
    seen: tuple[int, int] = (0, 0)
    counted: tuple[int, int] = (0, 0)
    not_seen: dict[str, str] = dataclasses.field(default_factory=dict)
    ratio: float | None = None
    memory: float | None = None
    seconds: float = 0.0
    not_run: str = ""


class Training(L.LightningModule):
    """Trains an entry's model by its own loss."""

    def __init__(self, entry: Entry) -> None:
        super().__init__()
        self.net, self.entry, self.losses = entry.make().train(), entry, list[Tensor]()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.entry.loss(self.net, batch)
        self.losses.append(loss.detach().clone())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.entry.optimizer([p for p in self.parameters() if p.requires_grad])


def seed() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def trained(entry: Entry, callbacks: list[Any]) -> Left:
    """What one step by a Trainer leaves, from the same random numbers."""
    gc.collect()  # the model of the step before, which may be a large one
    seed()
    module, batch = Training(entry), entry.batch()
    settings = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "logger": False, **entry.options}
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    L.Trainer(**settings, **quiet, callbacks=callbacks).fit(module, Loader([batch]))
    return left_by(module)


def left_by(module: Training) -> Left:
    """Digests of the loss, gradients, parameters and buffers, and of the states of the random number generators."""
    tensors: Left = {f"loss {i}": loss for i, loss in enumerate(module.losses)}
    for name, parameter in module.named_parameters():
        tensors[f"gradient of {name}"], tensors[name] = parameter.grad, parameter
    tensors |= dict(module.named_buffers())
    tensors["random numbers of torch"] = torch.get_rng_state()
    streams = {"NumPy": str(np.random.get_state()), "Python": str(random.getstate())}
    return {name: digest(tensor) for name, tensor in tensors.items()} | streams


def digest(tensor: Tensor | None) -> Any:
    """A digest of its bits: NaN equals NaN, and 0 does not equal -0."""
    if tensor is None:
        return None
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
    if hasattr(dense, "__tensor_flatten__"):  # a subclass of inner tensors
        return tuple(digest(getattr(dense, name)) for name in dense.__tensor_flatten__()[0])
    plain = dense.as_subclass(Tensor).contiguous().reshape(-1).resolve_conj().view(torch.uint8)
    return str(tensor.dtype), tuple(tensor.shape), hashlib.blake2b(plain.numpy()).hexdigest()


def check(entry: Entry, *, measured: bool = False) -> Row:
    """Train the model plain and with all monitors, and plain again where that differs; count its calls."""
    row, start, busy = Row(entry.group, entry.name), time.perf_counter(), time.process_time()
    plain = trained(entry, [])
    looking = monitors()
    for monitor in looking:
        monitor.files = False
    probed = trained(entry, looking)
    changed = different(plain, probed)
    unstable = different(plain, trained(entry, [])) if changed else []
    row.compared, row.unstable = len(plain), len(unstable)
    row.wrong += [f"differs in {name}" for name in changed if name not in unstable][:5]
    row.wrong += written(looking)
    if looking[2].history:
        snapshot = looking[2].history[0]
        row.seen, row.not_seen = (len(snapshot.activations), len(snapshot.weighted)), dict(snapshot.not_seen)
        row.counted = counted(entry)
        row.wrong += wrong_counts(entry, row)
    if measured and time.process_time() - busy < LONG:
        row.ratio, row.memory = cost(entry)
    row.seconds = time.perf_counter() - start
    return row


def different(one: Left, other: Left) -> list[str]:
    return [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]


def written(looking: list[Any]) -> list[str]:
    """What is wrong with what the monitors have kept, and with every view of it."""
    wrong = [f"{type(monitor).__name__} failed" for monitor in looking if monitor.errors.failed]
    doctor = looking[2]
    if len(doctor.history) != 1:
        return [*wrong, f"{len(doctor.history)} snapshots of one step"]
    snapshot = doctor.history[0]
    wrong += [f"{name}: {why}" for name, why in snapshot.not_seen.items() if "could not be read" in why]
    names = Counter((type(record).__name__, record.name) for record in snapshot.records())
    wrong += [f"{name} is the name of {count} records" for (_, name), count in names.items() if count > 1]
    text = json.dumps(snapshot.to_dict())
    if json.dumps(lt.Snapshot.from_dict(json.loads(text)).to_dict()) != text:
        wrong.append("JSON does not give the snapshot again")
    diagnosis = lt.diagnose(doctor.history)
    if not str(diagnosis) or not diagnosis.verdict:
        wrong.append("no table")
    wrong += [f"rule {name}" for name in getattr(diagnosis, "failed_rules", ())]
    with tempfile.TemporaryDirectory() as folder:
        if len(doctor.to_csv(Path(folder) / "history.csv").read_text().splitlines()) < 2:
            wrong.append("the CSV is empty")
    return wrong


def counted(entry: Entry) -> tuple[int, int]:
    """Calls of activations and of weighted operations in one forward pass, by the dispatcher."""
    seed()
    module, batch = Training(entry), entry.batch()
    with precision(entry), counting(module, batch) as count:
        entry.loss(module.net, batch)
    return count.activations, count.weighted


def precision(entry: Entry) -> contextlib.AbstractContextManager[Any]:
    if entry.options.get("precision") == "bf16-mixed":
        return torch.autocast("cpu", torch.bfloat16)
    return contextlib.nullcontext()


def wrong_counts(entry: Entry, row: Row) -> list[str]:
    kinds = list(zip(("activations", "weighted operations"), row.seen, row.counted, strict=True))
    wrong = [f"{seen} of {there} {kind} seen" for kind, seen, there in kinds if seen != there]
    if not entry.differs:
        return wrong
    missed = any(seen < there for _, seen, there in kinds)
    return [*wrong, "and nothing is listed as not seen"] if missed and not row.not_seen else []


def cost(entry: Entry, pairs: int = 3) -> tuple[float, float]:
    """Processor time of a probed step over that of a plain one, in turns; how many MB higher its peak is."""
    seed()
    module, batch = Training(entry), entry.batch()
    optimizer = module.configure_optimizers()
    times: dict[bool, list[float]] = {False: [], True: []}
    peaks = {False: 0.0, True: 0.0}
    for probed in [False, True] * (pairs + 1):
        optimizer.zero_grad()
        with peak() as reached:
            start = time.process_time()
            with lt.probe(module, optimizer) if probed else contextlib.nullcontext() as p:
                step(entry, module, optimizer, copy.copy(batch))
            if probed:
                p.snapshot()
            times[probed].append(time.process_time() - start)
        peaks[probed] = max(peaks[probed], reached[0])
    plain, with_probe = (statistics.median(times[probed][1:]) for probed in (False, True))
    return with_probe / plain, peaks[True] - peaks[False]


def step(entry: Entry, module: Training, optimizer: torch.optim.Optimizer, batch: Any) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        with precision(entry):
            loss = entry.loss(module.net, batch)
        loss.backward()
        return loss

    optimizer.step(closure)


@contextlib.contextmanager
def peak() -> Iterator[list[float]]:
    """The most memory of the process inside of the block, in MB; 0 where Linux does not tell."""
    reached = [0.0]
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    yield reached
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        reached[0] = next(float(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
