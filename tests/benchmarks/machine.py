"""One line that says on what a benchmark ran."""

from __future__ import annotations

import datetime
import os
import platform

import lightning
import torch


def describe() -> str:
    """Processor, threads, device, versions and date."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {device}; Python "
        f"{platform.python_version()}, torch {torch.__version__}, lightning {lightning.__version__}; "
        f"{datetime.date.today().isoformat()}"
    )
