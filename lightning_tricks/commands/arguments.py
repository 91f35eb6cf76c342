"""The arguments of every command, in one place."""

from __future__ import annotations

import argparse

from lightning_tricks.commands.status import version

STDOUT = "-"
FAIL_ON = ("warning", "critical")
_MODEL = "module:name of a factory without arguments, a class or a model; file.py:name too"
_DATA = "module:name of a loader, batches, one batch (x, y), a LightningDataModule, or a factory of one"
_SEED = "of the random numbers, those of the factories too (0)"
_STORED = "a checkpoint of a training with a doctor, a diagnosis as JSON, or a table (to_csv)"
_ABOUT = """Finds what is wrong with a training run of a deep network.

exit status: 0 healthy, "so far" too; 1 sick or not learning; 2 an error; 3 unknown, as too little was seen
"""


def parser() -> argparse.ArgumentParser:
    """With a command each."""
    whole = argparse.ArgumentParser(
        prog="lightning-tricks", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    commands = whole.add_subparsers(dest="command", metavar="command", required=True)
    for fill in (_checkup, _report, _compare, _summary, _problems):
        said = fill.__doc__ or ""
        own = commands.add_parser(fill.__name__.removeprefix("_"), help=said, description=said)
        fill(own)
        own.add_argument(
            "--json", metavar="FILE", help="write everything as JSON; - for the terminal, in place of the table"
        )
        own.add_argument("--traceback", action="store_true", help="show the whole traceback of an error")
    return whole


def _checkup(parser: argparse.ArgumentParser) -> None:
    """a few steps on a copy of a model, and what is wrong with it"""
    add = parser.add_argument
    add("model", help=_MODEL)
    add("--data", required=True, metavar="M:N", help=_DATA)
    add("--loss", metavar="NAME", help="of torch.nn.functional, or module:function; a LightningModule needs none")
    add("--val-data", metavar="M:N", help="the same of validation")
    add("--batches", type=int, default=8, metavar="N", help="optimiser steps (8)")
    add("--experiments", default="auto", metavar="WHICH", help="auto, all, none, or names parted by commas")
    add("--max-seconds", type=float, default=60, metavar="S", help="for the experiments (60)")
    add("--treat", action="store_true", help="try remedies on copies, make what is proven, and tell it")
    add("--save", metavar="FILE", help="with --treat: the state dict of the treated model (torch.save)")
    add("--ignore", nargs="+", default=[], metavar="PROBLEM", help="as dead_units, or dead_units:encoder.*")
    add("--fail-on", choices=FAIL_ON, default="warning", help="the least severity with exit status 1")
    add("--accepted", metavar="FILE", help="a JSON file of findings that do not count")
    add("--accept", action="store_true", help="write what is found into that file")
    add("--seed", type=int, default=0, help=_SEED)
    add("--html", metavar="FILE", help="write the page")
    add("--sarif", metavar="FILE", help="write SARIF 2.1.0, as code scanning reads it")


def _report(parser: argparse.ArgumentParser) -> None:
    """what a stored training shows, from a table or a checkpoint"""
    add = parser.add_argument
    add("source", help=_STORED)
    add("--ignore", nargs="+", default=[], metavar="PROBLEM", help="not to be found")
    add("--html", metavar="FILE", help="write the page")
    add("--csv", metavar="FILE", help="write the history as a table")
    add("--figures", metavar="FOLDER", help="write the pictures (matplotlib)")


def _compare(parser: argparse.ArgumentParser) -> None:
    """two runs, and the first layer and step at which they part"""
    add = parser.add_argument
    add("a", metavar="A", help=f"the first run: {_STORED}")
    add("b", metavar="B", help="the second run")
    add("--names", nargs=2, default=["run A", "run B"], metavar=("A", "B"), help="what to call them")
    add("--html", metavar="FILE", help="write the page")
    add("--figure", metavar="FILE", help="write both side by side as PNG (matplotlib)")
    parser.epilog = "exit status: 0 they do not part, 1 they part, 2 an error, 3 nothing in common"


def _summary(parser: argparse.ArgumentParser) -> None:
    """a network's layers, shapes, parameters, and how its signals start"""
    add = parser.add_argument
    add("model", help=_MODEL)
    add("--data", required=True, metavar="M:N", help=f"{_DATA}; the first batch goes into the model")
    add("--seed", type=int, default=0, help=_SEED)


def _problems(parser: argparse.ArgumentParser) -> None:
    """what can be found, and what each problem means"""
    parser.add_argument("name", nargs="?", help="a problem, to be explained; all of them in a line each without")
