import pytest

from lightning_tricks.report.html.markup import Markup, join, number, tag


def test_what_is_not_markup_is_escaped():
    assert tag("p", "<b>&", Markup("<i></i>"), title='"<>') == '<p title="&quot;&lt;&gt;">&lt;b&gt;&amp;<i></i></p>'
    assert join(["a<", [Markup("<br>"), 3], None]) == "a&lt;<br>3"


def test_an_element_without_content_is_not_closed():
    assert tag("meta", charset="utf-8", hidden=True, title=None, open=False) == '<meta charset="utf-8" hidden>'


@pytest.mark.parametrize("value", [0.0, 1.0, -1.5, 0.12345, 999.99, 1e-9, 100.0, 1e6])
def test_a_coordinate_is_the_number(value):
    assert float(number(value)) == pytest.approx(value, abs=5e-4)
