"""What the monitors share: the probe of a step, which steps and layers are probed, what is kept, files."""

__all__: list[str] = []
