"""Commands run in a folder of their own, in which the user's module lies."""

import sys

import pytest

from tests.commands.shop import CODE


@pytest.fixture(autouse=True)
def _project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "shop_of_tests.py").write_text(CODE)
    yield
    sys.modules.pop("shop_of_tests", None)
