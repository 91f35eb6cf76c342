"""A sick training for every problem."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import nn

from lightning_tricks.probes import ChannelMoments, Snapshot, ValidationRecord

from .custom import fit, look
from .trainings import deep, digits, lecun, sgd, train
from .watching import train as watched


@dataclasses.dataclass(frozen=True)
class Sick:
    """A training that shows this problem; ``make`` gives its snapshots."""

    problem: str
    make: Callable[[], list[Snapshot]]

    @functools.cache  # noqa: B019
    def history(self) -> list[Snapshot]:
        torch.manual_seed(0)
        return self.make()


def scaled(network: nn.Sequential, factor: float, *layers: int) -> nn.Sequential:
    for layer in layers:
        nn.init.normal_(network[layer].weight, std=factor * network[layer].weight.std().item())  # type: ignore
    return network


def filled(network: nn.Sequential, layer: int, what: str, value: float) -> nn.Sequential:
    nn.init.constant_(getattr(network[layer], what), value)
    return network


class Shift(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 6.0


class Cut(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach()


class Breaks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 1e9).log()


def never_cleared() -> list[Snapshot]:
    network = deep(nn.ReLU, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def take_step(x: torch.Tensor, y: torch.Tensor, step: int) -> None:
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    return look(network, take_step, [optimizer])


def memorised() -> list[Snapshot]:
    """Few patterns with labels at random; the validation loss is that on the same patterns rightly labelled."""
    generator = torch.Generator().manual_seed(0)
    x, y = (values[:64] for values in digits())
    wrong = torch.randint(10, y.shape, generator=generator)
    network = deep(nn.ReLU, 3)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses: list[float] = []

    def take_step(_: torch.Tensor, __: torch.Tensor, step: int) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), wrong).backward()
        optimizer.step()
        with torch.no_grad():
            losses.append(float(nn.functional.cross_entropy(network(x), y)))

    history = look(network, take_step, [optimizer], steps=200, every=10)
    return [dataclasses.replace(snapshot, validation_loss=losses[snapshot.step]) for snapshot in history]


def senseless() -> list[Snapshot]:
    """Labels that do not belong to the inputs, over five passes."""
    x, y = digits()
    wrong = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    network = deep(nn.ReLU, 2)
    stepper = sgd(0.01)(list(network.parameters()))
    history = fit(network, optimizer=stepper, data=(x, wrong), steps=150, every=4)
    return [dataclasses.replace(snapshot, epoch=snapshot.step / 28) for snapshot in history]


def slow(network: nn.Module) -> list[Snapshot]:
    return train(network, optimizer=sgd(0.01))


def labels_one_and_two(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(output[:, 0], 1.0 + (y > 4).float())


def to_unit_interval(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(output[:, 0], y / 9.0)


def one_output(last: nn.Module) -> nn.Sequential:
    return nn.Sequential(*deep(nn.ReLU, 2)[:-1], nn.Linear(64, 1), last)


class Images(nn.Module):
    """Rows of digits in order, read by something that is asked for which axis is the batch's."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.layer(x.view(-1, 8, 8))
        return self.head((rows[0] if isinstance(rows, tuple) else rows).flatten(1))  # type: ignore[no-any-return]


class Cut8(nn.Module):
    """Columns of all patterns one after the other, cut into patterns."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(0, 1).reshape(x.shape)


def mixed(layer: nn.Module, steps: int = 110) -> list[Snapshot]:
    return fit(Images(layer), steps=steps, optimizer=None, preflight=True)


class Language(nn.Module):
    """Predicts the next token; where it is not causal, by looking at it."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.embed, self.head, self.causal = nn.Embedding(8, 16), nn.Linear(16, 8), causal
        self.body = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1]) if self.causal else None
        return self.head(self.body(self.embed(x), mask))  # type: ignore[no-any-return]


def next_token(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(output.flatten(0, 1), y.flatten())


def language(*, causal: bool, steps: int = 40) -> list[Snapshot]:
    x = torch.randint(8, (400, 1)) + torch.arange(13) * torch.randint(1, 4, (400, 1))
    data = (x[:, :-1] % 8, x[:, 1:] % 8)
    return fit(Language(causal=causal), next_token, steps=steps, data=data, preflight=True)


def sorted_by_class() -> list[Snapshot]:
    x, y = digits()
    order = y.argsort(stable=True)
    batches = [(x[chosen], y[chosen]) for chosen in order.split(64)]
    return train(deep(nn.ReLU, 3), optimizer=sgd(0.1), batches=batches)


def decaying() -> list[Snapshot]:
    optimizer = functools.partial(torch.optim.SGD, lr=0.02, momentum=0.9, weight_decay=0.5)
    return watched(deep(nn.ReLU, 3), optimizer, 201)


def frequent_weighs_more() -> list[Snapshot]:
    """One of ten classes is rare, and weighs little on top."""
    x, y = digits()
    kept = (y != 0) | (torch.rand(len(y)) < 0.1)
    weight = torch.ones(10)
    weight[0] = 0.1
    loss = functools.partial(nn.functional.cross_entropy, weight=weight)
    return fit(deep(nn.ReLU, 2), loss, data=(x[kept], y[kept]))


def raw_validation() -> list[Snapshot]:
    """The validation is of data that nobody standardised, of which a doctor counts the moments."""
    history = train(deep(nn.ReLU, 3))
    training, raw = (moments(digits(normalised=normalised)[0]) for normalised in (True, False))
    unlike = ValidationRecord(history[0].weighted[0].name, tuple(range(64)), 5, training, raw)
    history[4] = dataclasses.replace(history[4], validation=unlike)
    return history


def moments(x: torch.Tensor) -> ChannelMoments:
    return ChannelMoments(len(x), tuple(x.mean(0).tolist()), tuple(x.std(0).tolist()))


SICK: dict[str, Sick] = {
    "weights too small": Sick("linearity", lambda: slow(scaled(lecun(deep(nn.Tanh, 8)), 1e-4, 6))),
    "no activation": Sick("linearity", lambda: train(nn.Sequential(*(nn.Linear(64, 64) for _ in range(3))))),
    "always on": Sick("linearity", lambda: slow(filled(deep(nn.ReLU, 2), 0, "bias", 20.0))),
    "weights too large": Sick("saturation", lambda: slow(scaled(lecun(deep(nn.Tanh, 6)), 60.0, 4))),
    "dead": Sick("dead_units", lambda: slow(filled(deep(nn.ReLU, 5), 4, "bias", -10.0))),
    "deep": Sick("vanishing_gradient", lambda: train(deep(nn.Sigmoid, 20), normalised=False)),
    "growing": Sick(
        "exploding_gradient", lambda: train(scaled(deep(nn.ReLU, 12), 6.0, *range(2, 24, 2)), optimizer=sgd(1e-12))
    ),
    "shifted": Sick(
        "bias_shift",
        lambda: train(nn.Sequential(deep(nn.Tanh, 2)[:2], Shift(), *deep(nn.Tanh, 2)[2:]), optimizer=sgd(0.1)),
    ),
    "faint": Sick("poor_initialization", lambda: slow(scaled(deep(nn.ReLU, 5), 1e-3, 4))),
    "equal": Sick("symmetric_weights", lambda: slow(filled(deep(nn.ReLU, 5), 4, "weight", 0.1))),
    "raw input": Sick("unnormalized_input", lambda: train(deep(nn.ReLU, 3), normalised=False)),
    "nan": Sick("non_finite", lambda: train(nn.Sequential(deep(nn.ReLU, 2), Breaks(), nn.Linear(10, 10)), steps=3)),
    "blown up": Sick("non_finite", lambda: train(deep(nn.ReLU, 5), optimizer=sgd(1e5))),
    "cut": Sick("disconnected_parameters", lambda: fit(nn.Sequential(deep(nn.ReLU, 2), Cut(), nn.Linear(10, 10)))),
    "rate of zero": Sick("no_update", lambda: train(deep(nn.ReLU, 2), optimizer=sgd(0.0))),
    "never cleared": Sick("stale_gradient", never_cleared),
    "steps too large": Sick("learning_rate_too_high", lambda: train(deep(nn.ReLU, 3), optimizer=sgd(30.0))),
    "steps too small": Sick("learning_rate_too_low", lambda: train(deep(nn.ReLU, 3), optimizer=sgd(1e-6))),
    "two softmaxes": Sick("output_mismatch", lambda: fit(nn.Sequential(deep(nn.ReLU, 2), nn.Softmax(1)))),
    "loud output": Sick("output_mismatch", lambda: fit(scaled(deep(nn.ReLU, 2), 100.0, 4))),
    "labels 1 and 2": Sick("target_mismatch", lambda: fit(deep(nn.ReLU, 2), labels_one_and_two)),
    "one entry": Sick("collapsed_output", lambda: fit(one_output(nn.Softmax(1)), to_unit_interval)),
    "patterns mixed": Sick("batch_mixing", lambda: mixed(Cut8())),
    "targets visible": Sick("target_leak", lambda: language(causal=False)),
    "raw validation": Sick("validation_mismatch", raw_validation),
    "decay": Sick("over_regularization", decaying),
    "frequent weighs more": Sick("class_imbalance", frequent_weighs_more),
    "sorted": Sick("unshuffled_data", sorted_by_class),
    "by heart": Sick("overfitting", memorised),
    "wrong labels": Sick("not_learning", senseless),
    "tiny batches": Sick("batch_norm_mismatch", lambda: fit(deep(nn.ReLU, 2, norm=nn.BatchNorm1d), batch=2)),
}
