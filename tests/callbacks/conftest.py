import pytest

from lightning_tricks.callbacks.monitoring.output.files import FitFiles


@pytest.fixture
def drawn():
    """Asks for pictures, which take most of the time of a small training."""


@pytest.fixture(autouse=True)
def _apart(request, tmp_path, monkeypatch, nothing_left):
    """Files go to a folder of the test's own; nothing stays attached."""
    monkeypatch.chdir(tmp_path)
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(FitFiles, "save_pictures", lambda *args: [])
