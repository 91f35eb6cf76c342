"""A step with all monitors is the plain one on every model of the zoo, and every call is seen."""

import pytest

from tests.zoo import all_entries
from tests.zoo.harness import check

pytestmark = pytest.mark.filterwarnings("ignore")
ENTRIES = [
    pytest.param(entry, id=f"{entry.group}: {entry.name}", marks=() if entry.fast else pytest.mark.all)
    for entry in all_entries()
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_step_with_all_monitors_is_the_plain_one(entry, tmp_path, monkeypatch, nothing_left):
    monkeypatch.chdir(tmp_path)
    assert check(entry).wrong == []
