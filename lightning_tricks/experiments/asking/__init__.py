"""How an experiment is made: what it is asked of, how outputs are replaced, which batches, in which order."""

__all__: list[str] = []
