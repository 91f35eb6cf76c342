"""The command line: one file per command, each a parser's arguments and a function from these to an exit status."""

from lightning_tricks.commands.main import main

__all__ = ["main"]
