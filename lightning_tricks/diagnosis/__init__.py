"""Turns snapshots into findings, by rules that are plain functions."""

from lightning_tricks.diagnosis.finding import PROBLEMS, SEVERITIES, Finding, Problem, Remedy, Severity
from lightning_tricks.diagnosis.rules import RULES, find

__all__ = ["PROBLEMS", "RULES", "SEVERITIES", "Finding", "Problem", "Remedy", "Severity", "find"]
