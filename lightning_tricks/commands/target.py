"""What ``module:name`` on the command line stands for: a model, its data, its loss."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pathlib
import random
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from lightning_tricks._compat.lightning import LightningDataModule
from lightning_tricks.commands.status import CommandError
from lightning_tricks.model.arguments import unknown_name
from lightning_tricks.report.files import missing


class CodeLocation(NamedTuple):
    """Where in the user's code something is made."""

    file: str
    line: int


def begin_random_numbers(seed: int) -> None:
    """Of Python, NumPy and torch, so that a command says the same twice."""
    for begin in (random.seed, np.random.seed, torch.manual_seed):
        begin(seed)


def model_of(target: str) -> tuple[nn.Module, CodeLocation | None]:
    """The model: a factory is called, a class made, a model taken as it is; and where that is in the code."""
    found = _found(target, "the model")
    model = found if isinstance(found, nn.Module) else _called(found, target)
    if not isinstance(model, nn.Module):
        raise CommandError(f"{target} gives {_kind(model)}, which is no model (torch.nn.Module)")
    return model, place_of(found)


def data_of(target: str) -> Any:
    """A loader, batches, one batch or a LightningDataModule; a factory of one is called."""
    found = _found(target, "data")
    is_data = torch.is_tensor(found) or not callable(found) or isinstance(found, LightningDataModule)
    return found if is_data else _called(found, target)


def loss_of(name: str | None) -> Callable[[Any, Any], torch.Tensor] | None:
    """A name of torch.nn.functional, or ``module:function``; a class of a loss is made."""
    if name is None:
        return None
    if ":" not in name:
        found = getattr(torch.nn.functional, name, None)
        if not callable(found):
            known = [each for each in dir(torch.nn.functional) if "loss" in each or "entropy" in each]
            raise CommandError(f"{unknown_name('loss', name, known)}, or a function of yours as module:function")
        return found
    found = _found(name, "the loss")
    loss = _called(found, name) if isinstance(found, type) else found
    if not callable(loss):
        raise CommandError(f"{name} gives {_kind(loss)}, which is no loss function")
    return loss


def place_of(thing: Any) -> CodeLocation | None:
    """The file, below the current folder, and the line at which a function or a class begins."""
    thing = type(thing) if isinstance(thing, nn.Module) else thing
    try:
        file, (_, line) = inspect.getsourcefile(thing), inspect.getsourcelines(thing)
    except (OSError, TypeError):
        return None
    return None if file is None else CodeLocation(pathlib.Path(os.path.relpath(file)).as_posix(), max(line, 1))


def _found(target: str, what: str) -> Any:
    path, _, name = target.rpartition(":")
    if not path or not name:
        raise CommandError(f"{what} is given as module:name, such as project.models:make_model, got {target!r}")
    module = _module(path)
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = _own_names(found)
            known = unknown_name("name", part, names) if names else "nothing is defined there"
            raise CommandError(f"{path} has no {name!r}: {known}") from None
    return found


def _own_names(thing: Any) -> list[str]:
    """What a module or a class defines itself, and models and data that stand in it; not what it imports."""
    home = getattr(thing, "__name__", "") if isinstance(thing, ModuleType) else getattr(thing, "__module__", "")
    return [name for name, value in vars(thing).items() if not name.startswith("_") and _is_own(value, home)]


def _is_own(value: Any, home: str) -> bool:
    if isinstance(value, type) or inspect.isroutine(value):
        return f"{getattr(value, '__module__', '')}.".startswith(f"{home}.")
    is_data = hasattr(value, "__iter__") or hasattr(value, "__getitem__") or isinstance(value, LightningDataModule)
    return isinstance(value, nn.Module) or (is_data and not isinstance(value, (str, ModuleType)))


def _module(path: str) -> ModuleType:
    """By its dotted name, from the current folder too, or by its file."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    is_file = path.endswith(".py")
    if is_file and not pathlib.Path(path).is_file():
        raise CommandError(missing(path))
    try:
        if not is_file:
            return importlib.import_module(path)
        sys.path.insert(0, str(pathlib.Path(path).resolve().parent))
        return importlib.import_module(pathlib.Path(path).stem)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(f"{error.name}.")):
            raise CommandError(
                f"there is no module {error.name!r} in {os.getcwd()} or among what is installed"
            ) from None
        raise CommandError(_failed(f"importing {path}", error)) from error
    except (Exception, SystemExit) as error:
        raise CommandError(_failed(f"importing {path}", error)) from error


def _called(found: Any, target: str) -> Any:
    if not callable(found):
        raise CommandError(f"{target} is {_kind(found)}: give a factory, a function without arguments")
    try:
        return found()
    except (Exception, SystemExit) as error:
        raise CommandError(_failed(f"{target}()", error)) from error


def _failed(what: str, error: BaseException) -> str:
    """With the innermost line of the traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{what} raised {type(error).__name__}: {error}{where}"


def _kind(thing: Any) -> str:
    return (
        "None" if thing is None else f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__
    )
