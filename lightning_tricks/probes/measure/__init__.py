"""What is counted: operations, losses, normalisations, parameters, error signals."""
