"""The commands as one parser, and their errors as a line on the terminal."""

from __future__ import annotations

import contextlib
import importlib
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from lightning_tricks.commands.arguments import parser
from lightning_tricks.commands.status import ERROR, CommandError

_PACKAGE = pathlib.Path(__file__).parents[1]


def _is_ours(error: BaseException) -> bool:
    """Whether the message is one of the package's, which says what is wrong by itself; another's needs its kind."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and pathlib.Path(frames[-1].filename).is_relative_to(_PACKAGE)
    return isinstance(error, (CommandError, OSError)) or (ours and isinstance(error, (TypeError, ValueError)))


def _in_layer(error: BaseException) -> str:
    """The innermost module whose forward failed, and what it was given; empty where it was none."""
    from torch import Tensor, nn

    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "forward"]
    modules = [each for frame in frames if isinstance(each := frame.f_locals.get("self"), nn.Module)]
    if not modules:
        return ""
    name = next((name for name, module in modules[0].named_modules() if module is modules[-1]), "")
    given = [value for frame in frames[-1:] for value in frame.f_locals.values() if isinstance(value, Tensor)]
    shapes = f", given {tuple(given[0].shape)}" if given else ""
    return f" (in {name or 'the model'}: {type(modules[-1]).__name__}{shapes})"


def _command(name: str) -> Callable[[Any], int]:
    """What runs it, with all that it needs."""
    run: Callable[[Any], int] = importlib.import_module(f"lightning_tricks.commands.{name}").run
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status.

    >>> main(["problems", "dead_units"])  # doctest: +ELLIPSIS
    dead_units: over half of a layer's units are active on under 1 % of the patterns
    ...
    0
    """
    options = parser().parse_args(arguments)
    try:
        status: int = _command(options.command)(options)
    except BrokenPipeError:  # as by `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except (Exception, SystemExit) as error:  # a factory that leaves the program has made nothing
        if options.traceback:
            traceback.print_exc()
        said = str(error) if _is_ours(error) else f"{type(error).__name__}: {error}{_in_layer(error)}"
        print(f"lightning-tricks {options.command}: error: {said}", file=sys.stderr)
        if getattr(options, "sarif", None):
            _write_failed(options.sarif, error, said)
        return ERROR
    return status


def _write_failed(path: str, error: BaseException, said: str) -> None:
    """The log that who reads SARIF waits for; where it cannot be written, that may be the error that was told."""
    from lightning_tricks.commands import output, sarif

    with contextlib.suppress(OSError):
        output.write_json(path, sarif.failed(error, said, ERROR))
