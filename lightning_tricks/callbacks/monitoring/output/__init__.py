"""Where what the monitors tell goes: screen, folders, loggers."""

__all__: list[str] = []
