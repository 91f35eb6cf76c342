"""Where runs are kept: one compressed file each, named by the case and by everything its numbers depend on."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import os
import pickle
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import lightning_tricks
from lightning_tricks.probes import Snapshot

from .case import Case
from .faults import KINDS
from .networks import architectures
from .train import Run

PACKAGE = Path(lightning_tricks.__file__).parent
HERE = Path(__file__).parent
# What the snapshots of a run depend on. The rules are not among it: they are judged without training anew.
_PACKAGE_SOURCES = ("probes", "stats", "model", "_compat", "activations", "nn/selu.py", "callbacks/monitoring")
_NETWORKS = ("network", "dense", "images", "sequences", "language", "gan")
_OWN_SOURCES = ("data", "drawn", "setup", "train", *(f"networks/{name}" for name in _NETWORKS))


class Store:
    """A folder of runs."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, case: Case) -> Path:
        return self.folder / f"{slug(case)}.{case.digest}.{self.stamp(case)}.pkl.z"

    def stamp(self, case: Case) -> str:
        return stamp(case)

    def has(self, case: Case) -> bool:
        return self.path(case).exists()

    def find(self, case: Case, stale: bool = False) -> Path | None:
        """The file of a case; with ``stale`` also one of older sources, the latest."""
        path = self.path(case)
        if path.exists():
            return path
        older = sorted(self.folder.glob(f"{slug(case)}.{case.digest}.*.pkl.z"), key=os.path.getmtime) if stale else []
        return older[-1] if older else None

    def save(self, run: Run) -> Path:
        """Write a run at once, so that an interruption leaves no half of it; older files of the case go."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(run.case)
        part = path.with_suffix(f".part{os.getpid()}")
        part.write_bytes(zlib.compress(pickle.dumps(run), 3))
        part.rename(path)
        for older in self.folder.glob(f"{slug(run.case)}.{run.case.digest}.*.pkl.z"):
            if older != path:
                older.unlink(missing_ok=True)
        return path

    def load(self, path: Path) -> Run:
        run: Run = pickle.loads(zlib.decompress(path.read_bytes()))
        for snapshot in run.snapshots:
            _fill_in(snapshot)
        return run

    def missing(self, cases: Iterable[Case]) -> list[Case]:
        return [case for case in cases if not self.has(case)]


def _fill_in(snapshot: Snapshot) -> None:
    """Fields that a snapshot of older sources lacks, with their defaults; a plain default stands in the class."""
    for field in dataclasses.fields(snapshot):
        if field.default_factory is not dataclasses.MISSING and not hasattr(snapshot, field.name):
            object.__setattr__(snapshot, field.name, field.default_factory())


def slug(case: Case) -> str:
    return re.sub(r"[^A-Za-z0-9.@|-]+", "_", case.name).replace("|", "-")[:120].rstrip(".")


def stamp(case: Case) -> str:
    """A hash of all sources that a run of this case depends on."""
    text = [_sources(), _architecture(case.architecture)]
    text += [_source(KINDS[fault.kind].plant) for fault in case.faults]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()[:10]


def _source(function: Callable[..., None]) -> str:
    """Of a function, and of what it names or encloses that stands beside it."""
    beside = [function.__globals__.get(name) for name in function.__code__.co_names]
    inside = [cell.cell_contents for cell in function.__closure__ or ()]
    things = [thing for thing in (*beside, *inside) if getattr(thing, "__module__", "") == function.__module__]
    settings = [repr(thing) for thing in inside if not callable(thing)]  # a function's repr is another in each process
    return "\n".join([*settings, *(inspect.getsource(thing) for thing in (function, *things))])


@functools.cache
def _sources() -> str:
    return _hash([*_package_files(), *(HERE / f"{name}.py" for name in _OWN_SOURCES)])


@functools.cache
def package_sources() -> str:
    """A hash of the part of the package that snapshots depend on."""
    return _hash(_package_files())


def _package_files() -> list[Path]:
    files: list[Path] = []
    for name in _PACKAGE_SOURCES:
        path = PACKAGE / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return files


def _hash(files: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


@functools.cache
def _architecture(name: str) -> str:
    """The lines of the table that define an architecture."""
    source = Path(architectures.__file__).read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == name and isinstance(value, ast.Call):
                    return ast.dump(value)
    return name
