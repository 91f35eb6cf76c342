"""Pictures for every logger that takes them, each known by its class's name: none of them has to be installed.

They are given as files, so that a picture is drawn once however many loggers there are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_tricks._compat.lightning import rank_zero_warn


def log_image(logger: Any, key: str, path: Path, step: int) -> bool:
    """Hand a PNG file to a logger under a key such as ``"doctor/ladder"``; whether it is one that takes pictures.

    One that fails, as without a network, is a warning: the file is there.
    """
    take = next((_TAKES[kind.__name__] for kind in type(logger).__mro__ if kind.__name__ in _TAKES), None)
    if take is None:
        return False
    try:
        take(logger, key, path, step)
    except Exception as error:
        rank_zero_warn(f"{type(logger).__name__} did not take the picture {path}: {type(error).__name__}: {error}")
    return True


def _tensorboard(logger: Any, key: str, path: Path, step: int) -> None:
    from matplotlib.image import imread

    logger.experiment.add_image(key, imread(path)[..., :3], global_step=step, dataformats="HWC")


def _wandb(logger: Any, key: str, path: Path, step: int) -> None:
    # Without a step of its own: W&B drops what comes at a step behind the latest one.
    logger.log_image(key=key, images=[str(path)])


def _mlflow(logger: Any, key: str, path: Path, step: int) -> None:
    logger.experiment.log_artifact(logger.run_id, str(path), artifact_path=key.rpartition("/")[0])


def _comet(logger: Any, key: str, path: Path, step: int) -> None:
    logger.experiment.log_image(str(path), name=key, step=step)


def _neptune(logger: Any, key: str, path: Path, step: int) -> None:
    logger.experiment[key].upload(str(path))


_TAKES: dict[str, Callable[[Any, str, Path, int], None]] = {
    "TensorBoardLogger": _tensorboard,
    "WandbLogger": _wandb,
    "MLFlowLogger": _mlflow,
    "CometLogger": _comet,
    "NeptuneLogger": _neptune,
}
