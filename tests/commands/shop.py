"""A module of a user, and a checkup of what is in it."""

from lightning_tricks.commands import main

CODE = """
import torch
from torch import nn
import lightning.pytorch as L

def plain(): return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
def sick(): return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(dim=1))
def frozen(): return plain().requires_grad_(False)
def broken(): raise RuntimeError("no weights here")
def leaves(): raise SystemExit(0)
ready = plain()
def batch():
    x = torch.randn(64, 6)
    return x, x[:, :3].argmax(1)
def three(): return [(torch.randn(8, 6), torch.zeros(8).long(), torch.zeros(8))]
def many(): return [(x, x[:, :3].argmax(1)) for x in torch.randn(12, 64, 6)]
def narrow(): return torch.randn(8, 5), torch.zeros(8).long()
number = 3

class Own(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = plain()
    def forward(self, x): return self.net(x)
    def training_step(self, batch, i): return nn.functional.cross_entropy(self(batch[0]), batch[1])
    def configure_optimizers(self): return torch.optim.Adam(self.parameters(), lr=0.01)

class Faint(Own):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))
        for p in self.net.parameters(): nn.init.constant_(p, 0.1)
"""
CHECKUP = ("--batches", "3", "--experiments", "none", "--loss", "cross_entropy")


def checkup(model, *more, data="batch"):
    return main(["checkup", f"shop_of_tests:{model}", "--data", f"shop_of_tests:{data}", *CHECKUP, *more])
