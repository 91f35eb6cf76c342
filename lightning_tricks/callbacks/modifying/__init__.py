"""What the callbacks that modify a network share: the batches that it is run on, and the members of an ensemble."""

__all__: list[str] = []
