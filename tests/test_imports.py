"""Imports run one way, and only one file names lightning."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lightning_tricks"
# Each may import what stands in an earlier group or in its own; nn, init and stats are one level.
LEVELS = [
    {"nn", "init", "stats"},
    {"probes", "surgery"},
    {"diagnosis"},
    {"treatment", "report"},
    {"_lightning"},
    {"callbacks"},
    {"checkup", "ensemble", "modules"},
]
MAY_NAME_LIGHTNING = {"_lightning.py"}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports, also inside functions, but not for type checking."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def level_of(part: str) -> int | None:
    return next((index for index, group in enumerate(LEVELS) if part in group), None)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    own = level_of(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    if own is None:
        assert path.name in ("__init__.py", "__main__.py")  # the table of contents
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "lightning_tricks" or len(parts) < 2:
            continue
        other = level_of(parts[1])
        assert other is not None, f"{path}: {name} has no level"
        assert other <= own, f"{path} imports {name}, which stands above it"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_one_file_names_lightning(path: Path) -> None:
    named = {name for name in imported(path) if name.split(".")[0] in ("lightning", "pytorch_lightning")}
    assert not named or path.name in MAY_NAME_LIGHTNING, f"{path} imports {sorted(named)}"


def test_torch_only_parts_import_without_lightning() -> None:
    for part in ("nn", "init", "stats", "probes", "surgery", "diagnosis"):
        for path in (PACKAGE / part).rglob("*.py"):
            outside = {name.split(".")[0] for name in imported(path)} - {"lightning_tricks"}
            third_party = outside & {
                "lightning",
                "torchmetrics",
                "torchvision",
                "matplotlib",
                "rich",
                "sklearn",
                "scipy",
            }
            assert not third_party, f"{path} imports {sorted(third_party)}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_grows_beyond_reading(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
