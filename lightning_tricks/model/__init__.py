"""Reads a model without leaving a trace: isolated runs, execution order, data flow, batches, processes (torch only)."""

__all__: list[str] = []
