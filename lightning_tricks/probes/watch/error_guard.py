"""The probe's own arithmetic must neither be seen by itself nor break a training."""

from __future__ import annotations

from typing import Any

import torch


class Careful:
    """A block that no function mode sees; an exception in it is listed as not seen and goes no further."""

    def __init__(self, not_seen: dict[str, str], name: str) -> None:
        self._not_seen, self._name = not_seen, name

    def __enter__(self) -> None:
        self._unseen = torch._C.DisableTorchFunction()
        self._unseen.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        self._unseen.__exit__(kind, error, trace)
        if isinstance(error, Exception):
            self._not_seen[self._name] = f"could not be read: {type(error).__name__}: {error}"
            return True
        return False
