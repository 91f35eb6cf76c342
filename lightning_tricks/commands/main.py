"""The commands as one parser, and their errors as a line on the terminal."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import traceback
from collections.abc import Sequence

from lightning_tricks.commands import checkup, compare, problems, report, summary
from lightning_tricks.commands.status import ERROR, CommandError

_COMMANDS = (checkup, report, compare, summary, problems)
_PACKAGE = pathlib.Path(__file__).parents[1]
_ABOUT = """Finds what is wrong with a training run of a deep network.

exit status: 0 healthy, "so far" too; 1 sick or not learning; 2 an error; 3 unknown, as too little was seen
"""


def parser() -> argparse.ArgumentParser:
    """With a command each."""
    whole = argparse.ArgumentParser(
        prog="lightning-tricks", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = whole.add_subparsers(dest="command", metavar="command", required=True)
    for module in _COMMANDS:
        said = (module.__doc__ or "").strip().partition("\n")[0]
        name = module.__name__.rpartition(".")[2]
        own = commands.add_parser(name, help=said.partition(": ")[2], description=said.partition(": ")[2])
        module.arguments(own)
        own.add_argument("--traceback", action="store_true", help="show the whole traceback of an error")
        own.set_defaults(run=module.run)
    return whole


def _is_ours(error: Exception) -> bool:
    """Whether the message is one of the package's, which says what is wrong by itself; another's needs its kind."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and pathlib.Path(frames[-1].filename).is_relative_to(_PACKAGE)
    return isinstance(error, (CommandError, OSError)) or (ours and isinstance(error, (TypeError, ValueError)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status.

    >>> main(["problems", "dead_units"])  # doctest: +ELLIPSIS
    dead_units: over half of a layer's units are active on under 1 % of the patterns
    ...
    0
    """
    options = parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except BrokenPipeError:  # as by `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except Exception as error:
        if options.traceback:
            traceback.print_exc()
        said = str(error) if _is_ours(error) else f"{type(error).__name__}: {error}"
        print(f"lightning-tricks {options.command}: error: {said}", file=sys.stderr)
        return ERROR
    return status
