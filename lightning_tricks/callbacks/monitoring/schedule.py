"""Which optimiser steps are looked at."""

from __future__ import annotations


def is_probed(step: int, every_n_steps: int) -> bool:
    """Steps 0, 1, 2, 4, 8, ... up to ``every_n_steps``, then every ``every_n_steps``: the beginning matters most.

    >>> [step for step in range(200) if is_probed(step, 50)]
    [0, 1, 2, 4, 8, 16, 32, 50, 100, 150]
    """
    if step % every_n_steps == 0:
        return True
    return step < every_n_steps and step & (step - 1) == 0
