"""TransformersDoctor: the doctor in a Trainer of Hugging Face's transformers."""

from __future__ import annotations

import functools
from typing import Any

from lightning_tricks.diagnosis.diagnosis import Diagnosis
from lightning_tricks.watch import LoopDoctor, watch


class TransformersDoctor:
    """A ``TrainerCallback`` that watches a Trainer of transformers: ``Trainer(..., callbacks=[TransformersDoctor()])``.

    From the beginning of the training to its end it does what :func:`lightning_tricks.watch` does, with
    ``logging_steps`` for ``every_n_steps`` unless that is given. It hears the losses of evaluations, and
    ``on_problem="stop"`` stops the Trainer. Where a training ends with an exception, the doctor is closed by
    ``close()`` or by the next training.

    Args:
        arguments: Those of :func:`lightning_tricks.watch`.

    Attributes:
        doctor: The doctor of the latest training; None before.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        ValueError: An argument is not one that ``watch`` understands; when the training begins.
    """

    doctor: LoopDoctor | None

    def __new__(cls, **arguments: Any) -> TransformersDoctor:
        kind: Any = cls
        made: TransformersDoctor = object.__new__(_with_transformers(kind))
        return made

    def __init__(self, **arguments: Any) -> None:
        self.arguments, self.doctor = arguments, None

    @property
    def diagnosis(self) -> Diagnosis:
        """What the rules say up to now; never None."""
        return Diagnosis() if self.doctor is None else self.doctor.diagnosis

    def close(self) -> None:
        """Detach, as after an exception."""
        if self.doctor is not None:
            self.doctor.close()

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: Any = None, optimizer: Any = None, **more: Any
    ) -> None:
        self.close()
        every = int(args.logging_steps) if args.logging_steps >= 1 else 50  # a share of the training is no number
        given = {"every_n_steps": every, "loader": more.get("train_dataloader"), **self.arguments}
        self.doctor = watch(model, optimizer, **given)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if self.doctor is not None and self.doctor.should_stop:
            control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, *, metrics: Any = None, **more: Any) -> None:
        loss = (metrics or {}).get("eval_loss")
        if self.doctor is not None and loss is not None:
            self.doctor.validated(loss)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.close()


@functools.cache
def _with_transformers(cls: type) -> type:
    """The class as one of transformers', which is imported with the first of them."""
    try:
        from transformers import TrainerCallback
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "TransformersDoctor is for the Trainer of transformers, which is not installed: pip install "
            "'transformers[torch]'; lt.watch(model, optimizer) is for any other loop"
        ) from error
    return cls if issubclass(cls, TrainerCallback) else type(cls.__name__, (cls, TrainerCallback), {})
