"""The record that every surgery fills; initialisation, which surgery builds on, fills the same one."""

from lightning_tricks.init.report import Entry, NoEffectWarning, Report

__all__ = ["Entry", "NoEffectWarning", "Report"]
