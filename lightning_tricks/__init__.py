"""lightning_tricks: finds what is wrong with a training run, names the first faulty layer, explains it with numbers."""
