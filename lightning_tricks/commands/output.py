"""Files that several commands write."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from lightning_tricks.commands.arguments import STDOUT
from lightning_tricks.report.files import replaced


def show(options: argparse.Namespace, plain: Callable[[], Mapping[str, Any]], text: Callable[[], None]) -> None:
    """The table on the terminal, or JSON there, and the JSON file."""
    if options.json != STDOUT:
        text()
    if options.json:
        write_json(options.json, plain())


def write_json(path: str, plain: Mapping[str, Any]) -> None:
    """Into a file, or on the terminal."""
    text = json.dumps(plain, indent=2, allow_nan=False) + "\n"
    if path == STDOUT:
        sys.stdout.write(text)
        return
    with replaced(path) as part:
        pathlib.Path(part).write_text(text, encoding="utf-8")
