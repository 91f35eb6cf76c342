"""Turns snapshots into findings, by rules that are plain functions."""

from lightning_tricks.diagnosis.diagnose import diagnose, find
from lightning_tricks.diagnosis.finding import SEVERITIES, Criterion, Finding, Remedy, Severity, Trait
from lightning_tricks.diagnosis.registry import PROBLEMS, RULES, problem_table
from lightning_tricks.diagnosis.rule import Rule, rule

__all__ = [
    "PROBLEMS",
    "RULES",
    "SEVERITIES",
    "Criterion",
    "Finding",
    "Remedy",
    "Rule",
    "Severity",
    "Trait",
    "diagnose",
    "find",
    "problem_table",
    "rule",
]
