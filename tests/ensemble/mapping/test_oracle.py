"""Bodies, losses and optimisers of which the mapped step is the looped one: what README's promise rests on."""

# ruff: noqa: E501  (tables)

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lightning_tricks as lt
from lightning_tricks.ensemble.mapping import proof
from lightning_tricks.ensemble.mapping.batched import BatchedLayers
from lightning_tricks.ensemble.mapping.stack import Stack
from lightning_tricks.ensemble.training.optimizers import ELEMENTWISE, move_to_stack
from tests.ensemble.trainings import DOUBLE, Plain, trainer

pytestmark = pytest.mark.oracle

K, B, IN = 3, 6, 12
X = torch.randn(K, B, IN, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
Y = torch.randint(4, (K, B), generator=torch.Generator().manual_seed(1))


class Residual(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.inner = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.inner(x)


class Attention(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True, **settings)

    def forward(self, x):
        return self.attend(x, x, x)[0]


class Tied(nn.Module):
    """One layer twice, and its weight once more, transposed."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(IN, IN)

    def forward(self, x):
        return F.linear(torch.tanh(self.layer(self.layer(x))), self.layer.weight.T)


class Counting(nn.Module):
    """A buffer that is updated in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("level", torch.zeros(IN))

    def forward(self, x):
        if self.training:
            self.level.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return x - self.level


class Tokens(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.embed = nn.Embedding(5, 4, **settings)

    def forward(self, x):
        return self.embed((x.abs() * 2).long().clamp(max=4))


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(IN, 5) for _ in range(3))
        self.gate = nn.Linear(IN, 3)

    def forward(self, x):
        outputs = {f"{n}": expert(x) for n, expert in enumerate(self.experts)}
        return torch.einsum("bke,bk->be", torch.stack(list(outputs.values()), 1), self.gate(x).softmax(1))


def line(*layers):
    return lambda: nn.Sequential(nn.Unflatten(1, (3, 4)), *(make() for make in layers))


def image(*layers):
    return lambda: nn.Sequential(nn.Unflatten(1, (1, 3, 4)), *(make() for make in layers))


def volume(*layers):
    return lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 2, 3)), *(make() for make in layers))


def table(*layers):
    return lambda: nn.Sequential(*(make() for make in layers))


def linear():
    return nn.Linear(IN, IN)


ACTIVATIONS = [nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid,
               nn.Softplus, nn.Hardswish, nn.Hardtanh, nn.Softsign, nn.LogSigmoid, nn.Tanhshrink, nn.ReLU6, nn.GLU,
               lambda: nn.ReLU(inplace=True), lambda: nn.Softmax(1), lambda: nn.Softmin(-1), lt.nn.ShiftedReLU]  # fmt: skip
NORMS = [lambda: nn.BatchNorm1d(IN), lambda: nn.BatchNorm1d(IN, affine=False),
         lambda: nn.BatchNorm1d(IN, track_running_stats=False), lambda: nn.LayerNorm(IN), lambda: nn.RMSNorm(IN),
         lambda: nn.LayerNorm(IN, elementwise_affine=False), lambda: nn.GroupNorm(3, IN),
         lambda: lt.nn.GhostBatchNorm1d(IN, ghost_size=4), lambda: lt.nn.MeanOnlyBatchNorm1d(IN),
         lambda: lt.nn.BatchRenorm1d(IN, warmup_steps=0, r_max_step=0, d_max_step=0), Counting,
         lambda: lt.nn.Standardize(IN)]  # fmt: skip
BODIES = [
    *(table(linear, act) for act in ACTIVATIONS),
    *(table(linear, norm, nn.Tanh) for norm in NORMS),
    *(table(linear, lambda p=p: p, nn.Tanh) for p in (nn.Dropout(0.5), nn.AlphaDropout(0.2), lt.nn.AlphaDropout(0.2))),
    table(linear),
    table(lambda: nn.Linear(IN, 40, bias=False), nn.ReLU, lambda: nn.Linear(40, 2)),
    table(Tied),
    table(Mixture),
    table(lambda: Residual(linear(), nn.ReLU(inplace=True), linear())),
    table(nn.Identity),
    table(lambda: lt.nn.SelfNormalizingMLP(IN, [8, 8], 5)),
    table(Tokens),
    table(lambda: Tokens(padding_idx=0)),
    line(lambda: nn.Conv1d(3, 4, 3)),
    line(lambda: nn.Conv1d(3, 6, 3, groups=3, padding=1)),
    line(lambda: nn.ConvTranspose1d(3, 2, 3, 2)),
    line(lambda: nn.LayerNorm(4)),
    line(lambda: nn.InstanceNorm1d(3, affine=True)),
    line(Attention),
    line(lambda: Attention(bias=False)),
    line(lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)),
    line(lambda: nn.AvgPool1d(2)),
    line(lambda: nn.TransformerEncoderLayer(4, 2, 8, activation="gelu", norm_first=True, batch_first=True)),
    line(lambda: nn.MaxPool1d(2)),
    line(lambda: nn.Linear(4, 3), nn.ReLU),
    line(lambda: nn.Dropout1d(0.5)),
    image(lambda: nn.Conv2d(1, 4, 2), lambda: nn.BatchNorm2d(4), nn.ReLU),
    image(lambda: nn.Conv2d(1, 4, 3, padding="same", padding_mode="circular")),
    image(lambda: nn.Conv2d(1, 2, 2), lambda: nn.AdaptiveAvgPool2d(1)),
    image(lambda: nn.ConvTranspose2d(1, 3, 2, stride=2)),
    image(lambda: nn.Conv2d(1, 4, 1), lambda: nn.GroupNorm(2, 4)),
    image(lambda: nn.Conv2d(1, 4, 1), lambda: nn.PixelShuffle(2)),
    image(lambda: nn.Conv2d(1, 4, 1), lambda: nn.MaxPool2d(2)),
    image(lambda: nn.Upsample(scale_factor=2), lambda: nn.Conv2d(1, 2, 3)),
    image(lambda: nn.Conv2d(1, 4, 1), lambda: lt.nn.GhostBatchNorm2d(4, ghost_size=4)),
    image(lambda: nn.Conv2d(1, 2, 1, dilation=2)),
    image(lambda: nn.Conv2d(1, 4, 1), lambda: lt.nn.BatchRenorm2d(4, warmup_steps=0, r_max_step=0, d_max_step=0)),
    image(lambda: nn.Conv2d(1, 4, 1), nn.Dropout2d),
    image(lambda: lt.nn.SELUConv2d(1, 4, 2)),
    image(lambda: nn.ZeroPad2d(1), lambda: nn.Conv2d(1, 2, 2)),
    volume(lambda: nn.Conv3d(1, 2, 2)),
    volume(lambda: nn.Conv3d(1, 2, 1), lambda: nn.BatchNorm3d(2)),
    volume(lambda: lt.nn.MeanOnlyBatchNorm3d(1)),
]


class Member(Plain):
    def __init__(self, body, loss=None):
        super().__init__(body)
        self.loss = loss
        with torch.no_grad():
            width = self.eval().double()(X[0]).flatten(1).shape[1]
        self.train()
        self.head = nn.Linear(width, 4).double()

    def training_step(self, batch, batch_idx):
        x, y = batch
        out = self.head(self(x).flatten(1))
        return F.cross_entropy(out, y) if self.loss is None else self.loss(out, y)


def prepared(make):
    members = [make() for _ in range(K)]
    for member in members:
        member.trainer = trainer()
    return Stack(members)


def check(stack):
    given = (stack, list(range(K)), (X, Y), 0)
    looped = proof.looped_outcome(*given)
    mapped = proof.mapped_outcome(*given, batched=BatchedLayers(stack))
    assert proof.first_difference(mapped, looped, [0, 1, 2]) is None


@pytest.mark.filterwarnings("ignore:Using padding='same'", "ignore:enable_nested_tensor")
@pytest.mark.parametrize("number", range(len(BODIES)))
def test_bodies(number):
    check(prepared(lambda: Member(BODIES[number]())))


def onehot(y):
    return F.one_hot(y, 4).double()


LOSSES = {
    "cross_entropy": F.cross_entropy,
    "smoothed": lambda out, y: F.cross_entropy(out, y, label_smoothing=0.1),
    "weighted": lambda out, y: F.cross_entropy(out, y, weight=torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=DOUBLE)),
    "summed": lambda out, y: F.cross_entropy(out, y, reduction="sum"),
    "soft targets": lambda out, y: F.cross_entropy(out, onehot(y)),
    "ignored": lambda out, y: F.cross_entropy(out, torch.where(y == 0, -100, y)),
    "nll": lambda out, y: F.nll_loss(out.log_softmax(1), y),
    "mse": lambda out, y: F.mse_loss(out, onehot(y)),
    "l1": lambda out, y: F.l1_loss(out, onehot(y)),
    "smooth l1": lambda out, y: F.smooth_l1_loss(out, onehot(y)),
    "huber": lambda out, y: F.huber_loss(out, onehot(y), delta=0.5),
    "bce": lambda out, y: F.binary_cross_entropy_with_logits(out, onehot(y)),
    "bce of probabilities": lambda out, y: F.binary_cross_entropy(out.sigmoid(), onehot(y)),
    "kl": lambda out, y: F.kl_div(out.log_softmax(1), onehot(y), reduction="batchmean"),
    "poisson": lambda out, y: F.poisson_nll_loss(out, y[:, None].double()),
    "hinge": lambda out, y: F.hinge_embedding_loss(out, 2 * onehot(y) - 1),
    "soft margin": lambda out, y: F.soft_margin_loss(out, 2 * onehot(y) - 1),
    "multi soft margin": lambda out, y: F.multilabel_soft_margin_loss(out, onehot(y)),
    "cosine": lambda out, y: F.cosine_embedding_loss(out, onehot(y), torch.ones(len(y), dtype=DOUBLE)),
    "triplet": lambda out, y: F.triplet_margin_loss(out, onehot(y), out.flip(0)),
    "ranking": lambda out, y: F.margin_ranking_loss(out[:, 0], out[:, 1], 2.0 * (y > 1) - 1),
    "pinball": lambda out, y: torch.maximum(0.9 * (onehot(y) - out), 0.1 * (out - onehot(y))).mean(),
    "focal": lambda out, y: ((1 - out.softmax(1).gather(1, y[:, None])) ** 2 * F.cross_entropy(out, y)).mean(),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    check(prepared(lambda: Member(nn.Sequential(nn.Linear(IN, 6), nn.Tanh()), LOSSES[name])))


@pytest.mark.parametrize("kind", [*ELEMENTWISE, "amsgrad"])
def test_optimizers(kind):
    """Five steps of one optimiser over the stack against those of one for each member."""
    options = {"SGD": {"momentum": 0.9, "nesterov": True}, "amsgrad": {"amsgrad": True}}.get(kind, {})
    decay = {} if kind == "Rprop" else {"weight_decay": 0.01}
    cls = torch.optim.Adam if kind == "amsgrad" else getattr(torch.optim, kind)

    def make():
        torch.manual_seed(3)
        return prepared(lambda: Member(nn.Sequential(nn.Linear(IN, 20), nn.Tanh())))

    stack, apart = make(), make().members
    optimizer, *own = (cls(member.parameters(), lr=0.02, **options, **decay) for member in (stack.members[0], *apart))
    move_to_stack(optimizer, stack)
    for _ in range(5):
        optimizer.zero_grad()
        for row, member in enumerate(stack.members):
            member.training_step((X[row], Y[row]), 0).backward()
        stack.collect_gradients()
        optimizer.step()
        for row, member in enumerate(apart):
            own[row].zero_grad()
            member.training_step((X[row], Y[row]), 0).backward()
            own[row].step()
    for one, two in zip(stack.members, apart, strict=True):
        torch.testing.assert_close(one.state_dict(), two.state_dict(), rtol=1e-10, atol=1e-12)
