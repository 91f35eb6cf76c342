"""What a run of snapshots tells: how long a problem has held, the progress of the training, its loss calls."""

__all__: list[str] = []
