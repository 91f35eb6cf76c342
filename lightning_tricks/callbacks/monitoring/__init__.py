"""What the monitors share: the probe of a step, when to look, what to keep, files."""
