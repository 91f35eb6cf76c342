"""A game for the trainings by reward: catch a ball that falls; many boards at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ROWS, COLUMNS, ACTIONS = 7, 5, 3
OBSERVED = ROWS * COLUMNS


class Catch:
    """A paddle in the last row moves left, stays or moves right; 1 for a ball caught and -1 for one missed."""

    def __init__(self, boards: int) -> None:
        self.ball, self.paddle = torch.randint(COLUMNS, (boards,)), torch.randint(COLUMNS, (boards,))
        self.row = torch.randint(ROWS - 1, (boards,))  # so that not all end at once

    def restart(self) -> None:
        """All balls at the top."""
        self.row = torch.zeros_like(self.row)

    def observe(self) -> Tensor:
        """Where the ball and the paddle are, ``[boards, OBSERVED]``."""
        board, each = torch.zeros(len(self.row), ROWS, COLUMNS), torch.arange(len(self.row))
        board[each, self.row, self.ball] = 1.0
        board[each, ROWS - 1, self.paddle] = 1.0
        return board.flatten(1)

    def step(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards and whether the balls are down; where they are, the next one falls."""
        self.paddle = (self.paddle + action - 1).clamp(0, COLUMNS - 1)
        self.row = self.row + 1
        down = self.row == ROWS - 1
        reward = torch.where(down, torch.where(self.ball == self.paddle, 1.0, -1.0), 0.0)
        self.row = torch.where(down, 0, self.row)
        self.ball = torch.where(down, torch.randint(COLUMNS, down.shape), self.ball)
        return reward, down


@torch.no_grad()
def mean_return(act: Callable[[Tensor], Tensor], boards: int = 500) -> float:
    """Of one ball each, for what the policy does at its best; about -.5 for chance."""
    game, total = Catch(boards), torch.zeros(boards)
    game.restart()
    for _ in range(ROWS - 1):
        total += game.step(act(game.observe()))[0]
    return float(total.mean())
