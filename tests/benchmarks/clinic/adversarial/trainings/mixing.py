"""Networks in which patterns of a batch meet each other, and are meant to."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kind import Plan, healthy
from .modules import Drawn, Listed, Supervised, accuracy, adam, digits_plan, in_order, mlp, r_squared, shuffled


class Experts(nn.Module):
    """Each pattern goes to its best expert, as long as that one has room; the others pass by (Fedus et al. 2022)."""

    def __init__(self, experts: int = 4, width: int = 48, room: float = 1.25) -> None:
        super().__init__()
        self.stem, self.router, self.head = nn.Linear(64, width), nn.Linear(width, experts), nn.Linear(width, 10)
        self.experts, self.room = nn.ModuleList(mlp(width, 64, width) for _ in range(experts)), room
        self.balance = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        share = self.router(x).softmax(1)
        weight, chosen = share.max(1)
        taken = F.one_hot(chosen, len(self.experts)).float()
        self.balance = len(self.experts) * (taken.mean(0) * share.mean(0)).sum()
        room = int(self.room * len(x) / len(self.experts))
        rows = []
        for k, expert in enumerate(self.experts):
            index = torch.where(chosen == k)[0][:room]
            rows.append(torch.zeros_like(x).index_add(0, index, weight[index, None] * expert(x[index])))
        return self.head(x + torch.stack(rows).sum(0))


@healthy("experts with capacity", "accuracy", 0.94)
def experts(seed: int) -> Plan:
    """Whether a pattern finds room depends on those before it in the batch."""
    net = Experts()
    module = Supervised(net, lambda output, y: F.cross_entropy(output, y) + 0.01 * net.balance, adam(2e-3))
    return digits_plan(module)


@healthy("batch norm without running statistics", "accuracy", 0.94)
def batch_statistics(seed: int) -> Plan:
    """In evaluation, too, a pattern is measured against its batch."""
    net = nn.Sequential(
        nn.Linear(64, 64, bias=False),
        nn.BatchNorm1d(64, track_running_stats=False),
        nn.ReLU(),
        nn.Linear(64, 64, bias=False),
        nn.BatchNorm1d(64, track_running_stats=False),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    return digits_plan(Supervised(net, F.cross_entropy, adam(2e-3)), 15)


class GraphNet(nn.Module):
    """Two rounds of means over neighbours (Kipf and Welling 2017)."""

    def __init__(self, features: int, classes: int, links: Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(features, 32), nn.Linear(32, classes)
        self.register_buffer("links", links / links.sum(1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.links @ self.second(F.dropout(F.relu(self.links @ self.first(x)), 0.3, self.training))


class OneGraph(L.LightningModule):
    """All nodes of one graph are every batch; the labels of a few are known."""

    def __init__(self, net: nn.Module, known: Tensor) -> None:
        super().__init__()
        self.net, self.known = net, known

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.net(x)[self.known], y[self.known])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.net(x)[~self.known], y[~self.known]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-2, weight_decay=5e-3)


@healthy("graph network on one graph", "accuracy on the other nodes", 0.85)
def one_graph(seed: int) -> Plan:
    """Four communities of a hundred, features that tell little."""
    y = torch.randperm(400) % 4
    chance = torch.where(y[:, None] == y[None], 0.06, 0.01)
    links = torch.bernoulli(chance).triu(1)
    links = links + links.T + torch.eye(400)
    x = 0.5 * F.one_hot(y, 16).float() + 0.5 * torch.randn(400, 16)
    known = torch.zeros(400, dtype=torch.bool)
    known[torch.randperm(400)[:80]] = True
    module = OneGraph(GraphNet(16, 4, links), known)
    return Plan(
        module,
        Listed([(x, y)] * 50),
        lambda: accuracy(lambda x: module.net(x)[~known], x, y[~known]),
        Listed([(x, y)]),
        epochs=6,
    )


class ManyGraphs(nn.Module):
    """Nodes of several graphs lie in one long batch; an index says whose each is."""

    def __init__(self) -> None:
        super().__init__()
        self.node, self.update, self.head = nn.Linear(3, 32), nn.Linear(64, 32), nn.Linear(32, 2)

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, edges, owner = batch
        x = F.relu(self.node(x))
        for _ in range(2):
            heard = torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])
            x = F.relu(self.update(torch.cat([x, heard], 1)))
        graphs = int(owner.max()) + 1
        return self.head(torch.zeros(graphs, x.shape[1]).index_add(0, owner, x) / 10)


def _rings(count: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Ten nodes each: one ring, or two of five; marks on the nodes give a hint of the neighbours."""
    y = torch.randint(2, (count,))
    nodes = torch.arange(10)
    one, two = (nodes + 1) % 10, torch.where(nodes % 5 == 4, nodes - 4, nodes + 1)
    sources = (10 * torch.arange(count)[:, None] + nodes).flatten()
    targets = (10 * torch.arange(count)[:, None] + torch.where(y[:, None] == 1, one, two)).flatten()
    edges = torch.stack([torch.cat([sources, targets]), torch.cat([targets, sources])])
    owner = torch.arange(count).repeat_interleave(10)
    return (F.one_hot(nodes // 5 + (nodes % 5 == 0), 3).float().repeat(count, 1), edges, owner), y


@healthy("graphs in one long batch", "accuracy", 0.95)
def many_graphs(seed: int) -> Plan:
    module, (x_val, y_val) = Supervised(ManyGraphs(), F.cross_entropy, adam(2e-3)), _rings(300)
    return Plan(
        module, Drawn(lambda: _rings(32), 300), lambda: accuracy(module, x_val, y_val), Listed([(x_val, y_val)])
    )


class SetNet(nn.Module):
    """Attention and a mean over the members of a set, none of which has a place (Lee et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.member, self.head = mlp(1, 32, 32), mlp(32, 32, 1)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.member(x)
        return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


@healthy("set network", "R2", 0.9)
def sets(seed: int) -> Plan:
    """The standard deviation of twelve numbers in any order."""

    def draw(count: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, 12, 1) * (0.3 + torch.rand(count, 1, 1))
        return x, x.std(1)

    module, (x_val, y_val) = Supervised(SetNet(), F.mse_loss, adam(2e-3)), draw(1000)
    return Plan(module, shuffled(*draw(4000)), lambda: r_squared(module(x_val), y_val), in_order(x_val, y_val), 6)


class NeuralProcess(L.LightningModule):
    """A batch is one function: what is known of it says what the rest is (Garnelo et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(2, 64, 64), mlp(65, 64, 2)

    def forward(self, x: Tensor, known: int, y: Tensor) -> tuple[Tensor, Tensor]:
        about = self.encoder(torch.cat([x, y], 1)[:known]).mean(0, keepdim=True)
        mean, raw = self.decoder(torch.cat([x, about.expand(len(x), -1)], 1)).chunk(2, 1)
        return mean, 0.05 + F.softplus(raw)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        mean, std = self(x, int(torch.randint(5, 60, ())), y)
        loss = -torch.distributions.Normal(mean, std).log_prob(y).mean()
        self.log("train_loss", loss, batch_size=1)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 3e-3)


@healthy("neural process", "R2 on unseen points", 0.6)
def neural_process(seed: int) -> Plan:
    """Sines of some height and phase; the likelihood of a density makes negative losses right."""

    def draw() -> tuple[Tensor, Tensor]:
        x = torch.rand(100, 1) * 4 - 2
        return x, (0.5 + torch.rand(())) * torch.sin(2 * x + 3 * torch.rand(()))

    module = NeuralProcess()

    def score() -> float:
        pairs = [(module(x, 40, y)[0][40:], y[40:]) for x, y in (draw() for _ in range(100))]
        return r_squared(*(torch.cat(parts) for parts in zip(*pairs, strict=True)))

    return Plan(module, Drawn(draw, 1500), score)
