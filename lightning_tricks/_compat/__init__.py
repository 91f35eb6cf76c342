"""Every private name of torch, lightning and torchmetrics that the package needs, each with what happens without it."""

__all__: list[str] = []
