"""The histories and findings that the tests of the report share."""

from tests.report.conftest import cause, deep, linear, rectifiers, second, sigmoids, spoilt

__all__ = ["cause", "deep", "linear", "rectifiers", "second", "sigmoids", "spoilt"]
