"""What is counted: operations, losses, normalisations, parameters, error signals."""

__all__: list[str] = []
