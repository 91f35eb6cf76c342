"""Who depends on whom: a call run again with other patterns beside, after the first step of a training."""

__all__: list[str] = []
