"""Every constructor of torchvision.models, in training mode."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from .entry import Entry, floats, images

FAST = frozenset(["squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "resnet18", "lraspp_mobilenet_v3_large"])
SIZES = {"inception_v3": 75, "maxvit_t": 224, "googlenet": 64}  # where 64 x 64 is too small or the size is fixed
STRICT = ("vit_", "swin_v2")  # take their size as an argument, or a window that 64 does not fill


def entries() -> Iterator[Entry]:
    for name in models.list_models(module=models):
        yield from [_classifier(name)]
    for name in models.list_models(module=models.segmentation):
        yield _entry("segmentation", name, images(), weights_backbone=None, num_classes=5)
    for name in models.list_models(module=models.detection):
        size = {} if "320" in name or name.startswith("ssd") else {"min_size": 128, "max_size": 128}  # else 800 pixels
        given: dict[str, Any] = {"loss": _sum, "weights_backbone": None, "num_classes": 3, **size}
        yield _entry("detection", name, _pictures("keypoint" in name), **given)
    for name in models.list_models(module=models.video):
        yield _entry("video", name, _clip(name), num_classes=5)
    for name in models.list_models(module=models.optical_flow):
        yield _entry("optical flow", name, lambda: (torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128)), loss=_flow)


def _entry(kind: str, name: str, batch: Any, **options: Any) -> Entry:
    loss = {"loss": options.pop("loss")} if "loss" in options else {}
    make = functools.partial(models.get_model, name, weights=None, **options)
    return Entry(name, f"torchvision {kind}", make, batch, fast=name in FAST, **loss)


def _classifier(name: str) -> Entry:
    size = SIZES.get(name, 64)
    options: dict[str, Any] = {"num_classes": 5}
    if name.startswith("vit_"):
        size = options["image_size"] = 28 if name == "vit_h_14" else 64
    if name in ("inception_v3", "googlenet"):
        options |= {"init_weights": False, "aux_logits": name == "googlenet"}
    if name == "maxvit_t":
        options["input_size"] = (224, 224)
    return _entry("classification", name, images(size), **options)


def _pictures(keypoints: bool) -> Callable[[], tuple[Any, ...]]:
    def batch() -> tuple[Any, ...]:
        boxes = torch.tensor([[5.0, 5.0, 40.0, 40.0], [20.0, 20.0, 60.0, 62.0]])
        target = {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": torch.ones(2, 64, 64, dtype=torch.uint8)}
        if keypoints:
            target["keypoints"] = torch.tensor([[[20.0, 20.0, 1.0]] * 17] * 2)
        return [torch.rand(3, 64, 64), torch.rand(3, 64, 64)], [target, dict(target)]

    return batch


def _sum(net: nn.Module, batch: Any) -> Tensor:
    return sum(floats(net(*batch)))


def _flow(net: nn.Module, batch: Any) -> Tensor:
    return sum(flow.square().mean() for flow in net(*batch, num_flow_updates=2))


def _clip(name: str) -> Callable[[], tuple[Tensor]]:
    frames, size = 16, 224 if "mvit" in name or name == "s3d" else 64  # s3d: its last kernel has 7 x 7 places
    return lambda: (torch.randn(1 if size == 224 else 2, 3, frames, size, size),)


ENTRIES = list(entries())
