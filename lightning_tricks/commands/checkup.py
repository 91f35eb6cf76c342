"""checkup: a few steps on a copy of a model, and what is wrong with it"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

import lightning_tricks.testing as testing
from lightning_tricks._compat.lightning import is_lightning_module
from lightning_tricks.checkup import checkup
from lightning_tricks.commands import output, sarif
from lightning_tricks.commands.status import OF_STATE, CommandError
from lightning_tricks.commands.target import DATA, MODEL, SEED, begin_random_numbers, data_of, loss_of, model_of
from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.treatment import treat


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", help=MODEL)
    add("--data", required=True, metavar="M:N", help=DATA)
    add("--loss", metavar="NAME", help="of torch.nn.functional, or module:function; a LightningModule needs none")
    add("--val-data", metavar="M:N", help="the same of validation")
    add("--batches", type=int, default=8, metavar="N", help="optimiser steps (8)")
    add("--experiments", default="auto", metavar="WHICH", help="auto, all, none, or names parted by commas")
    add("--max-seconds", type=float, default=60, metavar="S", help="for the experiments (60)")
    add("--treat", action="store_true", help="try remedies on copies, and tell what they bring")
    add("--ignore", nargs="+", default=[], metavar="PROBLEM", help="as dead_units, or dead_units:encoder.*")
    add("--fail-on", choices=testing.FAIL_ON, default="warning", help="the least severity with exit status 1")
    add("--accepted", metavar="FILE", help="a JSON file of findings that do not count")
    add("--accept", action="store_true", help="write what is found into that file")
    add("--seed", type=int, default=0, help=SEED)
    output.json_argument(parser)
    add("--html", metavar="FILE", help="write the page")
    add("--sarif", metavar="FILE", help="write SARIF 2.1.0, as code scanning reads it")


def run(options: argparse.Namespace) -> int:
    if options.accept and not options.accepted:
        raise CommandError("--accept writes to the file --accepted FILE: give one")
    accepted = testing.Accepted()
    if options.accepted and not options.accept:
        if not pathlib.Path(options.accepted).exists():
            raise CommandError(f"there is no file {options.accepted}; --accept writes it")
        accepted = testing.Accepted.read(options.accepted)
    begin_random_numbers(options.seed)
    model, place = model_of(options.model)
    data, loss = data_of(options.data), loss_of(options.loss)
    if loss is None and not is_lightning_module(model):
        raise CommandError(f"{options.model} gives no LightningModule: give its loss, such as --loss cross_entropy")
    val_data = None if options.val_data is None else data_of(options.val_data)
    names = options.experiments.split(",")
    diagnosis = checkup(
        model,
        data,
        loss,
        num_batches=options.batches,
        ignore=options.ignore,
        experiments=names[0] if names[0] in ("auto", "all", "none") else names,
        val_data=val_data,
        max_seconds=options.max_seconds,
    )
    output.show(options, diagnosis.to_dict, diagnosis.show)
    if options.treat:
        beside = sys.stderr if options.json == output.STDOUT else sys.stdout
        print("", treat(model, diagnosis, data, loss, val_data=val_data, dry_run=True), sep="\n", file=beside)
    if options.html:
        diagnosis.to_html(options.html)
    if options.accept:
        accepted = testing.Accepted.of(diagnosis)
        accepted.write(options.accepted)
    if options.sarif:
        output.write_json(options.sarif, sarif.sarif(diagnosis, place, accepted))
    return _status(diagnosis, accepted, options)


def _status(diagnosis: Diagnosis, accepted: testing.Accepted, options: Any) -> int:
    state, left = testing.judged(diagnosis, accepted, options.fail_on)
    hidden = len(diagnosis.findings) - len(left)
    if accepted.severities and hidden:
        _say(f"{hidden} of {len(diagnosis.findings)} findings do not count: accepted, or under {options.fail_on}")
    gone = accepted.gone(diagnosis)
    if gone:
        _say(f"accepted, and no longer found: {', '.join(gone)}")
    return OF_STATE[state]


def _say(line: str) -> None:
    print(line, file=sys.stderr)
