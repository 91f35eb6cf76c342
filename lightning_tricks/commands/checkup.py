"""checkup: a few steps on a copy of a model, and what is wrong with it"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

import torch
from torch import nn

import lightning_tricks.testing as testing
from lightning_tricks._compat.lightning import is_lightning_module
from lightning_tricks.checkup import checkup
from lightning_tricks.commands import output, sarif
from lightning_tricks.commands.status import OF_STATE, CommandError
from lightning_tricks.commands.target import begin_random_numbers, data_of, loss_of, model_of
from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.report.files import replaced
from lightning_tricks.treatment import Treatment

Structure = tuple[dict[str, torch.Size], list[type[nn.Module]]]


def run(options: argparse.Namespace) -> int:
    if options.accept and not options.accepted:
        raise CommandError("--accept writes to the file --accepted FILE: give one")
    if options.save and not options.treat:
        raise CommandError("--save writes the state of the treated model: give --treat too")
    accepted = testing.Accepted()
    if options.accepted and not options.accept and pathlib.Path(options.accepted).exists():
        accepted = testing.Accepted.read(options.accepted)
    elif options.accepted and not options.accept:
        _say(f"nothing is accepted: there is no file {options.accepted}; --accept writes it")
    begin_random_numbers(options.seed)
    model, place = model_of(options.model)
    data, loss = data_of(options.data), loss_of(options.loss)
    if loss is None and not is_lightning_module(model):
        raise CommandError(f"{options.model} gives no LightningModule: give its loss, such as --loss cross_entropy")
    val_data = None if options.val_data is None else data_of(options.val_data)
    names, before = options.experiments.split(","), structure(model)
    diagnosis = checkup(
        model,
        data,
        loss,
        num_batches=options.batches,
        ignore=options.ignore,
        experiments=names[0] if names[0] in ("auto", "all", "none") else names,
        val_data=val_data,
        max_seconds=options.max_seconds,
        treat=options.treat,
    )
    output.show(options, diagnosis.to_dict, diagnosis.show)
    if options.save:
        _save(model, before, diagnosis.treatment, options)
    if options.html:
        diagnosis.to_html(options.html)
    if options.accept:
        accepted = testing.Accepted.of(diagnosis)
        accepted.write(options.accepted)
    if options.sarif:
        output.write_json(options.sarif, sarif.sarif(diagnosis, place, accepted))
    return _status(diagnosis, accepted, options)


def _save(model: nn.Module, before: Structure, treatment: Treatment, options: Any) -> None:
    """The state of the treated model, and what it fits: a network of other layers has other names."""
    if not treatment.applied:
        _say(f"nothing was changed in the model, so {options.save} is not written")
        return
    state = model.state_dict()
    with replaced(options.save) as part:
        torch.save(state, part)
    fits = f"what {options.model} gives"
    if before != structure(model):
        fits = f"the model after: {'; '.join(remedy.text for remedy in treatment.applied)}"
    _say(f"{options.save}: the state of the treated model, not trained yet; it fits {fits}")


def structure(model: nn.Module) -> Structure:
    """What a state dict has to fit, its names and shapes, and what it does not tell, the kinds of modules."""
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    return shapes, [type(module) for module in model.modules()]


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
