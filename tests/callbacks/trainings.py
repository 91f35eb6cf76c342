"""Small trainings, and one way to run them with and without monitors."""

import logging

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import lightning_tricks as lt

for name in ("lightning.pytorch", "pytorch_lightning"):
    logging.getLogger(name).setLevel(logging.ERROR)


def monitors(every_n_steps=1, **arguments):
    return [
        lt.ActivationMonitor(every_n_steps=every_n_steps, **arguments),
        lt.GradientFlowMonitor(every_n_steps=every_n_steps, **arguments),
        lt.TrainingDoctor(every_n_steps=every_n_steps, on_problem="log", **arguments),
    ]


def mlp():
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3))


def cnn():
    return nn.Sequential(
        nn.Unflatten(1, (1, 6, 1)), nn.Conv2d(1, 8, (3, 1)), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.Dropout2d(0.2), nn.Conv2d(8, 8, 1), nn.ReLU6(inplace=True), nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip


def transformer():
    layer = nn.TransformerEncoderLayer(2, 1, 8, dropout=0.1, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (3, 2)), layer, nn.Flatten(), nn.Linear(6, 3))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 8, 2, dropout=0.2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.lstm(x.view(-1, 3, 2))[0][:, -1])


class Classifier(L.LightningModule):
    """Logs its loss and remembers the loss of every batch."""

    def __init__(self, network=None, optimizer=torch.optim.Adam):
        super().__init__()
        self.net, self.optimizer, self.losses = network or mlp(), optimizer, []

    def loss(self, batch):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.losses.append(loss.detach().clone())
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return self.optimizer(self.parameters(), lr=0.01)


class Functional(Classifier):
    """Calls F.relu in the training step itself, and has layers of its own beside the network."""

    def __init__(self):
        super().__init__(nn.Linear(6, 12))
        self.head = nn.Linear(12, 3)

    def loss(self, batch):
        x, y = batch
        return F.cross_entropy(self.head(F.dropout(F.relu(self.net(x)), 0.2, self.training)), y)


class Scheduled(Classifier):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class Skipping(Classifier):
    def training_step(self, batch, batch_idx):
        return None if batch_idx % 3 == 1 else super().training_step(batch, batch_idx)


class ConfiguredLate(Classifier):
    def __init__(self):
        super().__init__(nn.Identity())

    def configure_model(self):
        if isinstance(self.net, nn.Identity):
            self.net = mlp()


class Gan(Classifier):
    """Two optimisers a batch, by hand."""

    def __init__(self):
        super().__init__(nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(), nn.Linear(8, 6)))
        self.critic = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        x, _ = batch
        first, second = self.optimizers()
        made = self.net(torch.randn_like(x))
        for optimizer in (first, second):
            score = self.critic(made.detach()) - self.critic(x) if optimizer is first else -self.critic(made)
            loss = F.softplus(score).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            self.clip_gradients(optimizer, 1.0, "norm")
            optimizer.step()
            self.losses.append(loss.detach().clone())

    def configure_optimizers(self):
        return torch.optim.Adam(self.critic.parameters(), 0.01), torch.optim.Adam(self.net.parameters(), 0.01)


class AccumulatesByHand(Classifier):
    """Steps at every third batch only, never at the batches that a schedule of powers of two would look at alone."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        loss = self.loss(batch) / 3
        self.losses.append(loss.detach().clone())
        self.manual_backward(loss)
        if batch_idx % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()


def lbfgs(parameters, lr):
    return torch.optim.LBFGS(parameters, lr=lr, max_iter=3, line_search_fn="strong_wolfe")


def batches(count=6, size=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 6, generator=generator), torch.randint(3, (size,), generator=generator))
        for _ in range(count)
    ]


class Loader:
    """Batches as they are (a Trainer takes a list for several loaders)."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def fit(
    module, callbacks=(), data=None, *, validation=None, ckpt_path=None, seed=0, trainer_class=L.Trainer, **options
):
    """Train a module from the same random numbers, quietly; the trainer."""
    settings = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "callbacks": list(callbacks),
        **options,
    }
    if settings.get("barebones"):
        settings = {k: v for k, v in settings.items() if not k.startswith("enable_") and k != "logger"}
    trainer = trainer_class(**settings)
    if seed is not None:
        torch.manual_seed(seed)
    data = batches() if data is None else data
    trainer.fit(module, _loader(data), None if validation is None else _loader(validation), ckpt_path=ckpt_path)
    return trainer


def _loader(data):
    """Loaders as they are; batches in one."""
    given = data if isinstance(data, list) else [data]
    return data if isinstance(given[0], DataLoader) else Loader(data)


def same(one, other):
    """Whether two trees of tensors are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
