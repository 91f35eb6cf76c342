"""Which versions run, for what a lower one does not do: each place says what that is."""

import lightning
import torch
import torchmetrics

TORCH = tuple(map(int, torch.__version__.split("+")[0].split(".")[:2]))
LIGHTNING = tuple(map(int, lightning.__version__.split(".")[:2]))
TORCHMETRICS = tuple(map(int, torchmetrics.__version__.split(".")[:2]))
