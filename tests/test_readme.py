"""What the README says of the package is what the package says."""

from pathlib import Path

from lightning_tricks.diagnosis import problem_table

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_table_of_problems_is_that_of_the_rules():
    assert problem_table() in README
