"""Trainings that people rightly run and that look odd to a naive tool, each with the figure that proves it healthy.

python -m tests.benchmarks.clinic generate --set adversarial     train what is missing (resumable)
python -m tests.benchmarks.clinic judge --set adversarial        alarms by kind; --failures lists every one
python -m tests.benchmarks.clinic report --set adversarial       the same as Markdown
"""
