"""Turns snapshots into findings, by rules that are plain functions."""

from lightning_tricks.diagnosis.diagnose import RULES, find
from lightning_tricks.diagnosis.finding import PROBLEMS, SEVERITIES, Finding, Problem, Remedy, Severity

__all__ = ["PROBLEMS", "RULES", "SEVERITIES", "Finding", "Problem", "Remedy", "Severity", "find"]
