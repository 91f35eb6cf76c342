"""Experiments: short runs on copies, each of which answers one question with a number."""
