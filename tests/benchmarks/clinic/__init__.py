"""The clinic: healthy and sick training runs with known faults, and how well the diagnosis does on them.

python -m tests.benchmarks.clinic generate     train what is missing (resumable)
python -m tests.benchmarks.clinic judge        the numbers; --failures lists every wrong one
python -m tests.benchmarks.clinic report       the same as Markdown

With ``--set whole`` only the faults of the whole training and their twins, with ``--set adversarial`` healthy trainings
that look odd.
"""
