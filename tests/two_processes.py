"""A script that several processes run as one group, as ``torchrun --nproc-per-node 2`` starts it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_two(script: str, folder: Path) -> list[str]:
    """What each of two printed."""
    return run_group(script, folder, 2)


def run_group(script: str, folder: Path, count: int, limit: float = 200.0) -> list[str]:
    """What each printed; all have to end well, and are stopped where they do not after so many seconds."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    environment.update(WORLD_SIZE=str(count), NODE_RANK="0", OMP_NUM_THREADS="1", MPLBACKEND="agg")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=folder, env={**environment, "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=limit)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * count, outputs
    return outputs
