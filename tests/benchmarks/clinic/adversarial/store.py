"""Where runs are kept; a run is of today if the probes, the frame and the file of its kind are."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

from ..store import Store, package_sources
from .case import HealthyCase
from .cases import all_kinds

HERE = Path(__file__).parent
_SHARED = ("train.py", "trainings/modules.py", "../data.py")


class HealthyStore(Store):
    """A folder of runs of healthy trainings."""

    def stamp(self, case: HealthyCase) -> str:  # type: ignore[override]
        own = inspect.getsourcefile(all_kinds()[case.kind].build)
        assert own is not None
        text = [package_sources(), *((HERE / name).read_text() for name in _SHARED), Path(own).read_text()]
        return hashlib.sha256("\n".join(text).encode()).hexdigest()[:10]
