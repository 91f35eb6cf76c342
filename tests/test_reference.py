"""The reference is built from the docstrings, without a warning and without a network."""

import subprocess
import sys
from pathlib import Path

import pytest

import lightning_tricks as lt

ROOT = Path(__file__).parents[1]


@pytest.mark.all
def test_it_is_built_without_a_warning(tmp_path):
    pytest.importorskip("pdoc", reason="pdoc comes with the extra 'dev'")
    command = [sys.executable, "-m", "pdoc", "-d", "google", "--math", "-o", str(tmp_path), "lightning_tricks"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Warn" not in result.stderr, result.stderr
    page = (tmp_path / "lightning_tricks.html").read_text()
    pages = page + "".join(path.read_text() for path in (tmp_path / "lightning_tricks").rglob("*.html"))
    assert [
        name for name in lt.__all__ if f'id="{name}"' not in pages and f"lightning_tricks/{name}" not in pages
    ] == []
