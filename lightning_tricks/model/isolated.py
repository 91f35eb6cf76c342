"""Running a model without a trace: flags, buffers and random numbers are as before, whatever happens in the block."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_tricks._compat.compiled import eagerly
from lightning_tricks._compat.torch_modules import buffers_of
from lightning_tricks.model.layers import has_running_statistics

__all__ = [
    "isolated",
    "keep_random_numbers",
    "keep_training_flags",
    "random_streams",
    "same_stream",
    "set_random_streams",
]


@contextlib.contextmanager
def isolated(
    model: nn.Module, *, norms_as_set: bool = False, layer_by_layer: bool = False, updated: Iterable[nn.Module] = ()
) -> Iterator[None]:
    """Eval mode without gradients; afterwards nothing tells that the model was run.

    A compiled model runs in eager mode, where hooks are heard. As before are: every training flag, every buffer, by
    value and by identity, and all random numbers: Python's, NumPy's, and torch's on the CPU and the model's devices.

    Args:
        model: The model to be run.
        norms_as_set: Batch norm works as its own flag says: what follows it sees the batch's statistics in training,
            and the running ones of a new network say nothing.
        layer_by_layer: Without torch's fast path, which passes by the layers inside of a transformer.
        updated: Layers whose own buffers may change. They get their values back only if an exception leaves the block.

    >>> model = nn.Sequential(nn.Dropout(0.5))
    >>> with isolated(model):
    ...     model[0].training
    False
    >>> model[0].training
    True
    """
    modules = list(model.modules())
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with keep_random_numbers(devices), _keep_buffers(modules, updated), keep_training_flags(model):
        with torch.no_grad(), eagerly():
            try:
                torch.backends.mha.set_fastpath_enabled(fast_path and not layer_by_layer)
                for module in modules:
                    if not (norms_as_set and has_running_statistics(module)):
                        module.training = False  # not .eval(): a model may freeze or merge layers in its own train()
                yield
            finally:
                torch.backends.mha.set_fastpath_enabled(fast_path)


@contextlib.contextmanager
def keep_training_flags(model: nn.Module) -> Iterator[None]:
    """A block in which modules have other training flags; afterwards each has its own again."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextlib.contextmanager
def keep_random_numbers(
    devices: Iterable[torch.device] | None = None, generators: Iterable[Generator] = ()
) -> Iterator[None]:
    """A block that may draw random numbers; Python's, NumPy's and torch's go on as if it had not.

    Args:
        devices: Whose streams are kept, besides the CPU's; None for those of all CUDA devices.
        generators: Further streams of torch.
    """
    if devices is None:
        devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    others = [(device, _stream_of(device)) for device in devices if device.type not in ("cpu", "meta")]
    states = [(generator, generator.get_state()) for generator in generators]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        for device, state in others:
            _set_stream_of(device, state)
        for generator, state in states:
            generator.set_state(state)


def random_streams(devices: Iterable[torch.device]) -> list[Tensor]:
    """The states of torch's random numbers on the CPU and on these devices: equal as long as none was drawn."""
    others = sorted({device for device in devices if device.type not in ("cpu", "meta")}, key=str)
    return [torch.get_rng_state(), *map(_stream_of, others)]


def set_random_streams(devices: Iterable[torch.device], streams: list[Tensor]) -> None:
    """Let torch's random numbers go on from where ``random_streams`` of the same devices found them."""
    others = sorted({device for device in devices if device.type not in ("cpu", "meta")}, key=str)
    torch.set_rng_state(streams[0])
    for device, state in zip(others, streams[1:], strict=True):
        _set_stream_of(device, state)


def same_stream(generator: Generator) -> Generator:
    """Another generator that draws the same numbers from here on; ``copy.deepcopy`` knows none."""
    other = Generator(generator.device)
    other.set_state(generator.get_state())
    return other


def _stream_of(device: torch.device) -> Tensor:
    home = torch.get_device_module(device)
    state: Tensor = home.get_rng_state() if device.type == "mps" else home.get_rng_state(device)
    return state


def _set_stream_of(device: torch.device, state: Tensor) -> None:
    home = torch.get_device_module(device)
    if device.type == "mps":
        home.set_rng_state(state)
    else:
        home.set_rng_state(state, device)


@contextlib.contextmanager
def _keep_buffers(modules: Iterable[nn.Module], updated: Iterable[nn.Module]) -> Iterator[None]:
    free = set(updated)
    saved: dict[bool, list[tuple[nn.Module, str, Tensor, Tensor]]] = {True: [], False: []}
    for module in modules:
        for name, buffer in module.named_buffers(recurse=False):
            if is_lazy(buffer):  # it has no value yet
                continue
            saved[module in free].append((module, name, buffer, buffer.detach().clone()))
    try:
        yield
    except BaseException:
        _put_back(saved[True])
        raise
    finally:
        _put_back(saved[False])


@torch.no_grad()
def _put_back(saved: Iterable[tuple[nn.Module, str, Tensor, Tensor]]) -> None:
    for module, name, buffer, value in saved:
        buffer.copy_(value)
        buffers_of(module)[name] = buffer  # a forward may have put another tensor in its place
