"""The models, by where they come from."""
