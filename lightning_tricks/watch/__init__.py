"""A doctor for any loop, and what it shares with the monitors of a Trainer: schedule, losses between looks, judging."""

from lightning_tricks.watch.doctor import LoopDoctor, watch

__all__ = ["LoopDoctor", "watch"]
