"""Losses: every function and reduction against torch's own mean; moments against NumPy; who comes before a loss."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.probes import probe
from lightning_tricks.probes.measure import losses

N, C = 12, 5


def look(run, model=None, **options):
    torch.manual_seed(0)
    model = model or nn.Linear(6, C)
    with probe(model, **options) as p:
        loss = run(model(torch.randn(N, 6)))
        if loss is not None:
            loss.sum().backward()
    return p.snapshot()


def only(snapshot):
    assert not [reason for reason in snapshot.not_seen.values() if "could not be read" in reason]
    (record,) = snapshot.losses
    return record


def classes(seed=1, shape=(N,)):
    return torch.randint(C, shape, generator=torch.Generator().manual_seed(seed))


def shares():
    return torch.rand(N, C, generator=torch.Generator().manual_seed(2)).softmax(1)


WEIGHT = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5])
SIGNS = shares().sub(0.2).sign()
CASES = {
    "cross_entropy": (F.cross_entropy, classes(), {}),
    "cross_entropy, weights": (F.cross_entropy, classes(), {"weight": WEIGHT}),
    "cross_entropy, ignoring": (F.cross_entropy, classes(), {"ignore_index": 3}),
    "cross_entropy, all of it": (
        F.cross_entropy, classes(), {"weight": WEIGHT, "ignore_index": 2, "label_smoothing": 0.1},
    ),
    "cross_entropy, shares": (F.cross_entropy, shares(), {"weight": WEIGHT}),
    "nll_loss": (lambda y, *a, **k: F.nll_loss(F.log_softmax(y, 1), *a, **k), classes(), {"ignore_index": 1}),
    "multi_margin_loss": (F.multi_margin_loss, classes(), {"weight": WEIGHT}),
    "binary_cross_entropy": (lambda y, *a, **k: F.binary_cross_entropy(y.sigmoid(), *a, **k), shares(), {}),
    "binary_cross_entropy_with_logits": (
        F.binary_cross_entropy_with_logits, shares(), {"pos_weight": WEIGHT, "weight": WEIGHT},
    ),
    "soft_margin_loss": (F.soft_margin_loss, SIGNS, {}),
    "multilabel_soft_margin_loss": (F.multilabel_soft_margin_loss, shares().round(), {"weight": WEIGHT}),
    "multilabel_margin_loss": (F.multilabel_margin_loss, torch.stack([torch.randperm(C) for _ in range(N)]), {}),
    "hinge_embedding_loss": (F.hinge_embedding_loss, SIGNS, {}),
    "mse_loss": (F.mse_loss, shares(), {}),
    "mse_loss, weights": (F.mse_loss, shares(), {"weight": WEIGHT.expand(N, C)}),
    "l1_loss": (F.l1_loss, shares(), {}),
    "smooth_l1_loss": (F.smooth_l1_loss, shares(), {"beta": 0.3}),
    "huber_loss": (F.huber_loss, shares(), {"delta": 0.3}),
    "gaussian_nll_loss": (F.gaussian_nll_loss, shares(), {"var": torch.full((N, C), 0.4)}),
    "poisson_nll_loss": (F.poisson_nll_loss, shares(), {"full": True}),
}  # fmt: skip


def test_the_record_tells_what_the_call_was_given():
    """Of what is no default; of tensors the shape."""
    given = {"weight": WEIGHT, "ignore_index": 2, "reduction": "sum", "label_smoothing": 0.1}
    criterion = nn.CrossEntropyLoss(**given)
    for loss in (criterion, lambda out, y: F.cross_entropy(out, y, WEIGHT, None, 2, None, "sum", 0.1)):
        record = only(look(lambda out, loss=loss: loss(out, classes())))
        assert record.arguments == "weight=[5], ignore_index=2, reduction='sum', label_smoothing=0.1"
        assert type(record).from_dict(record.to_dict()).arguments == record.arguments
    assert only(look(lambda out: nn.CrossEntropyLoss()(out, classes()))).arguments == ""
    positive = only(look(lambda out: F.binary_cross_entropy_with_logits(out, shares(), pos_weight=WEIGHT)))
    assert positive.arguments == "pos_weight=[5]"
    assert only(look(lambda out: F.huber_loss(out, shares(), delta=0.3))).arguments == "delta=0.3"


@pytest.mark.parametrize("case", CASES)
def test_value_is_the_mean_whatever_the_reduction(case):
    function, target, options = CASES[case]
    if "weights" in case and function is F.mse_loss and "weight" not in F.mse_loss.__code__.co_varnames:
        pytest.skip("this torch has no weights in mse_loss")
    found = {}
    for reduction in ("mean", "sum", "none"):
        torch.manual_seed(0)
        expected = function(nn.Linear(6, C)(torch.randn(N, 6)), target, reduction="mean", **options)
        found[reduction] = only(look(lambda y, r=reduction: function(y, target, reduction=r, **options)))
        assert found[reduction].value == pytest.approx(float(expected.detach()), rel=1e-5)
        assert found[reduction].function == found[reduction].name == case.split(",")[0]
        assert found[reduction].reduction == reduction
    assert found["sum"].input_shape == (N, C)
    assert found["sum"].target_shape == tuple(target.shape)
    assert (found["sum"].patterns, found["sum"].outputs) == (N, C)


@pytest.mark.parametrize(
    ("function", "target"), [(F.cross_entropy, classes()), (F.mse_loss, shares()), (F.kl_div, shares())]
)
def test_a_sum_is_so_many_times_the_mean(function, target):
    with probe(nn.Linear(6, C)) as p:
        torch.manual_seed(0)
        loss = function(nn.Linear(6, C)(torch.randn(N, 6)), target, reduction="sum")
        loss.backward()
    record = only(p.snapshot())
    assert record.terms * record.value == pytest.approx(float(loss.detach()), rel=1e-5)


def test_the_table_is_covered():
    named = {kind.name for kind in losses.FUNCTIONS} - {"kl_div"}  # below
    assert {case.split(",")[0] for case in CASES} == named
    assert all(getattr(F, kind.name).__name__ == kind.name for kind in losses.FUNCTIONS)


@pytest.mark.parametrize("reduction", ["mean", "batchmean", "sum", "none"])
@pytest.mark.filterwarnings("ignore:reduction")
def test_kl_div_is_a_sum_over_outputs(reduction):
    record = only(look(lambda y: F.kl_div(F.log_softmax(y, 1), shares(), reduction=reduction)))
    torch.manual_seed(0)
    expected = F.kl_div(F.log_softmax(nn.Linear(6, C)(torch.randn(N, 6)), 1), shares(), reduction="batchmean")
    assert record.value == pytest.approx(float(expected.detach()), rel=1e-5)
    assert record.log_sum_error < 1e-6 < record.sum_error


def test_old_words_for_the_reduction():
    with pytest.warns(UserWarning, match="reduction='sum'") as told:
        record = only(look(lambda y: F.mse_loss(y, shares(), size_average=False)))
    assert len(told) == 1  # by torch, not once more by the probe
    assert record.value == pytest.approx(only(look(lambda y: F.mse_loss(y, shares()))).value)


@pytest.mark.parametrize(("run", "activation"), [
    (lambda y: F.mse_loss(y, shares()), None),
    (lambda y: F.mse_loss(F.relu(y), shares()), "relu"),
    (lambda y: F.mse_loss(F.relu(y).view(N, 1, C).squeeze(1), shares()), "relu"),
    (lambda y: F.binary_cross_entropy(y.sigmoid(), shares()), "sigmoid"),
    (lambda y: F.mse_loss(F.relu(y).exp(), shares()), None),
    (lambda y: F.nll_loss(F.log_softmax(y, 1), classes()), None),
])  # fmt: skip
def test_what_comes_before(run, activation):
    record = only(look(run))
    assert record.activation == activation
    assert record.weighted == "linear"
    assert record.order == (2 if activation is None and "exp" not in run.__code__.co_names else 3)


def test_two_heads_each_have_their_own():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x):
            return self.one(x), self.two(x)

    snapshot = look(lambda y: F.mse_loss(y[0], torch.ones(N, 3)) + F.mse_loss(y[1].tanh(), torch.ones(N, 3)), Heads())
    assert [(r.name, r.weighted, r.activation) for r in snapshot.losses] == [
        ("mse_loss", "one", None), ("mse_loss_2", "two", "tanh"),
    ]  # fmt: skip
    gone = look(lambda y: F.mse_loss(y[0].exp(), torch.ones(N, 3)), Heads())
    assert gone.losses[0].weighted == "two"  # unknown: the last before it
    assert look(lambda y: F.mse_loss(y[0], torch.ones(N, 3)), Heads(), layers="nothing").losses[0].weighted is None


def test_names():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.criterion = nn.Linear(6, C), nn.CrossEntropyLoss()

        def forward(self, x):
            return self.criterion(self.net(x), classes())

    assert only(look(lambda loss: loss, Inside())).name == "criterion"
    assert only(look(lambda y: nn.CrossEntropyLoss(WEIGHT)(y, classes()))).name == "cross_entropy"
    assert look(lambda y: None, Inside()).losses  # also without a backward pass


def test_metrics_are_no_losses():
    def run(y):
        with torch.no_grad():
            F.cross_entropy(y, classes())
        F.mse_loss(y.detach(), shares())
        return F.cross_entropy(y, classes())

    record = only(look(run))
    assert record.name == "cross_entropy"
    assert [r.function for r in look(run).activations] == []  # log_softmax inside is none either


def test_positions_count_as_patterns():
    model = nn.Conv2d(2, C, 1)
    target = classes(shape=(4, 3, 7))
    with probe(model) as p:
        y = model(torch.randn(4, 2, 3, 7))
        F.cross_entropy(y, target).backward()
    record = only(p.snapshot())
    assert (record.patterns, record.outputs) == (84, C)
    expected = np.log(np.exp(y.detach().numpy()).sum(1))
    assert record.log_sum_error == pytest.approx(np.abs(expected).max(), rel=1e-5)


def test_without_a_batch():
    model = nn.Linear(6, C)
    with probe(model) as p:
        F.cross_entropy(model(torch.randn(6)), torch.tensor(3)).backward()
    record = only(p.snapshot())
    assert (record.patterns, record.outputs, record.target_mean, record.target_std) == (1, C, 3.0, 0.0)


def test_large_vocabularies_are_thinned(monkeypatch):
    monkeypatch.setattr(losses, "MAX_INPUTS", 40 * C)
    torch.manual_seed(0)
    model, x, target = nn.Linear(6, C), torch.randn(1000, 6), classes(shape=(1000,))
    with probe(model) as p:
        loss = F.cross_entropy(model(x), target)
    record = only(p.snapshot())
    assert 32 <= record.patterns <= 40
    assert record.value == pytest.approx(float(loss.detach()))  # of all
    assert record.target_max <= 4.0
    with probe(model, max_patterns=None) as p:
        F.cross_entropy(model(x), target)
    assert only(p.snapshot()).patterns == 1000


def test_micro_batches_are_one():
    model, x = nn.Linear(6, C).double(), torch.randn(N, 6).double()
    with probe(model) as p:
        F.cross_entropy(model(x), classes()).backward()
    whole = only(p.snapshot())
    with probe(model) as p:
        for part, target in zip(x.split([3, 9]), classes().split([3, 9]), strict=True):
            p.new_batch()
            F.cross_entropy(model(part), target).backward()
    parts = only(p.snapshot())
    assert parts.patterns == whole.patterns
    expected = whole.measures() | {"input_variation": parts.input_variation}
    assert parts.measures() == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert parts.class_counts == whole.class_counts


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_recorded(value):
    record = only(look(lambda y: F.mse_loss(y * value, shares())))
    assert not math.isfinite(record.value)
    assert not math.isfinite(record.input_max)


def test_half_precision_and_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        record = only(look(lambda y: F.cross_entropy(y, classes(), reduction="sum")))
    assert record.value == pytest.approx(only(look(lambda y: F.cross_entropy(y, classes()))).value, rel=0.02)


def test_strange_calls_do_not_break_the_training():
    torch.manual_seed(0)
    model = nn.Linear(6, C)
    with probe(model) as p:
        empty = F.mse_loss(model(torch.randn(0, 6)), torch.randn(0, C))
        inner = torch.func.vmap(lambda x: F.mse_loss(model(x), torch.ones(C)))(torch.randn(3, 6))
        with pytest.raises(ValueError, match="Expected input batch_size"):
            F.cross_entropy(model(torch.randn(3, 6)), torch.zeros(4, dtype=torch.long))
    assert math.isnan(float(empty.detach()))
    assert inner.shape == (3,)
    assert p.snapshot().losses == ()
    assert "function transform" in p.snapshot().not_seen["linear_2"]  # where its input comes from
