"""summary: a network's layers, shapes, parameters, and how its signals start"""

from __future__ import annotations

import argparse

from lightning_tricks.checkup import RepeatedBatches
from lightning_tricks.commands import output
from lightning_tricks.commands.status import OK
from lightning_tricks.commands.target import begin_random_numbers, data_of, model_of
from lightning_tricks.summary import summary


def run(options: argparse.Namespace) -> int:
    begin_random_numbers(options.seed)
    model, _ = model_of(options.model)
    batch = next(iter(RepeatedBatches(data_of(options.data), 1)))
    found = summary(model, batch)
    output.show(options, found.to_dict, lambda: print(found))
    return OK
