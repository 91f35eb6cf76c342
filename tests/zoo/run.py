"""Runs entries one by one in a process of its own each, which is ended where it takes too long or too much memory."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import logging
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .harness import Row, check
from .models.entry import Entry

SPARE = 1.5  # GB of the machine's memory that a model has to leave
PROCESSES = multiprocessing.get_context("fork")  # what is imported already need not be imported again


def run(entries: Iterable[Entry], store: Path, limit: float) -> None:
    """Check entries that the store does not hold yet."""
    store.parent.mkdir(parents=True, exist_ok=True)
    known = {(row.group, row.name) for row in load(store)}
    gc.freeze()  # what is imported need not be gone through in each of the processes
    for entry in entries:
        if (entry.group, entry.name) in known:
            continue
        row = _apart(entry, limit)
        with store.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(row)) + "\n")
        known.add((entry.group, entry.name))
        told = row.not_run or "; ".join(row.wrong) or "as it has to be"
        print(f"{row.group:28} {row.name:44} {row.seconds:6.1f} s  {told}", flush=True)


def load(store: Path) -> list[Row]:
    return [Row(**json.loads(line)) for line in store.read_text().splitlines()] if store.exists() else []


def _apart(entry: Entry, limit: float) -> Row:
    here, there = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_work, args=(entry, there))
    process.start()
    there.close()
    try:
        why = _ended(here, process.pid, time.monotonic() + limit, f"takes over {limit:.0f} s")
        return Row(entry.group, entry.name, not_run=why, seconds=limit) if why else here.recv()
    except EOFError:
        return Row(entry.group, entry.name, ["its process ended"])
    finally:
        process.kill()
        process.join()


def _ended(here: Any, pid: int | None, until: float, late: str) -> str:
    """Why a process is to be ended before it has sent its row; empty when that has come."""
    while not here.poll(0.2):
        if time.monotonic() > until:
            return late
        if (free := _gigabytes("/proc/meminfo", "MemAvailable:")) is not None and free < SPARE:
            return f"needs over {_gigabytes(f'/proc/{pid}/status', 'VmRSS:') or 0:.0f} GB"
    return ""


def _gigabytes(file: str, field: str) -> float | None:
    """A field of a table of memory; None where Linux does not tell."""
    with contextlib.suppress(OSError):
        for line in Path(file).read_text().splitlines():
            if line.startswith(field):
                return float(line.split()[1]) / 2**20
    return None


def _work(entry: Entry, pipe: Any) -> None:
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning_tricks", "transformers", "diffusers"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        os.chdir(folder)
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            try:
                row = check(entry, measured=True)
            except Exception as error:
                row = Row(entry.group, entry.name, [f"{type(error).__name__}: {str(error)[:200]}"])
        pipe.send(row)
        os.chdir("/")
