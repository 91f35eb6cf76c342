"""One step, one epoch and one optimiser for all members of an ensemble."""
