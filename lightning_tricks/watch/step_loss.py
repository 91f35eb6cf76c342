"""The loss of a step of any loop: what went backward and left a gradient for the step, and the scale on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat.torch_optim import current_scale, scaler_at_work
from lightning_tricks._compat.torch_tensors import version
from lightning_tricks.stats import unreadable
from lightning_tricks.watch.loss_history import loss_in

_Mark = tuple[int, int]


class StepLoss:
    """Adds up losses as gradients add up; one whose gradient was cleared before the step, as of another network, is not
    among them.

    Told by two parameters, the first and the last that are trained, so that it costs the same for any network.

    Args:
        parameters: Those that the step changes.

    >>> layer = nn.Linear(1, 1)
    >>> loss = StepLoss(layer.parameters())
    >>> for x in (1.0, 2.0):
    ...     given = x * layer.weight.sum() / layer.weight.detach().sum()
    ...     loss.before(given)
    ...     given.backward()
    ...     loss.after()
    >>> float(loss.take()), loss.take()
    (3.0, None)
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        self._ends = (trained[:1] + trained[1:][-1:]) if trained else []
        self._marks: list[_Mark] = []
        self._pending: list[Tensor] = []
        self._total: Tensor | None = None

    @property
    def is_cleared(self) -> bool:
        """Whether no gradient is left of what went backward before."""
        return all(parameter.grad is None for parameter in self._ends)

    def before(self, losses: Any, *, goes_on: bool = False) -> None:
        """What goes backward now; ``goes_on``: cleared gradients have made a part of the step."""
        if self.is_cleared and not goes_on:
            self._total = None
        self._marks = self._read()
        given = [losses] if isinstance(losses, Tensor) else list(losses) if isinstance(losses, Sequence) else []
        found = [loss_in(loss) for loss in given if isinstance(loss, Tensor) and unreadable(loss) is None]
        self._pending = [loss for loss in found if loss is not None]

    def after(self) -> None:
        """It went backward."""
        pending, self._pending = self._pending, []
        if pending and self._read() != self._marks:
            with torch.no_grad():
                for loss in pending:
                    self._total = loss.clone() if self._total is None else self._total + loss

    def take(self) -> Tensor | None:
        """The loss of the step that is over, where it is; None where none was seen."""
        total, self._total = self._total, None
        return total

    def _read(self) -> list[_Mark]:
        gradients = [parameter.grad for parameter in self._ends]
        return [(0, 0) if gradient is None else (id(gradient), version(gradient)) for gradient in gradients]


class LossScale:
    """The factor that a loop's GradScaler puts on the loss, 1 without one; the scaler shows when it makes a step."""

    def __init__(self) -> None:
        self._scaler: Any = None

    def find(self) -> None:
        """Right before an optimiser's step."""
        self._scaler = scaler_at_work() or self._scaler

    @property
    def now(self) -> float | Tensor:
        return 1.0 if self._scaler is None else current_scale(self._scaler)

    def taken_off(self, loss: Tensor) -> Tensor:
        """The loss without it."""
        if self._scaler is None:
            return loss
        with torch.no_grad():
            scale = self.now
            return loss / (scale.to(loss.device) if isinstance(scale, Tensor) else scale)


def trained_by(model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> list[Tensor]:
    """The model's parameters that the optimisers hold, in the order of the model."""
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    return [parameter for parameter in model.parameters() if id(parameter) in held]
