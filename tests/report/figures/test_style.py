import itertools
import sys

import pytest
import torch

from lightning_tricks.report import dead_and_linear, gradient_flow, histograms_over_time, ladder
from lightning_tricks.report.figures import style
from tests.report.conftest import mlp, train


@pytest.mark.parametrize("count", [0, 1, 2, 9, 10, 11, 37, 100, 1001])
@pytest.mark.parametrize("room", [2, 5, 10, 26])
def test_ticks_are_few_even_and_reach_both_ends(count, room):
    at = style.ticks(count, room)
    assert len(at) <= room
    assert at == sorted(set(at))
    if count:
        assert (at[0], at[-1]) == (0, count - 1)
    gaps = [b - a for a, b in itertools.pairwise(at)]
    assert len(set(gaps[:-1])) <= 1
    assert not gaps or gaps[-1] >= 0.7 * gaps[0]


def test_missing_matplotlib_is_named_with_the_extra_to_install(sigmoids, monkeypatch):
    for name in [name for name in sys.modules if name == "matplotlib" or name.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"ladder needs matplotlib.*pip install 'lightning-tricks\[plots\]'"):
        ladder(sigmoids)


def test_the_look_is_left_as_it_was(sigmoids):
    import matplotlib

    before = dict(matplotlib.rcParams)
    ladder(sigmoids)
    assert dict(matplotlib.rcParams) == before


def test_colours_get_darker_with_the_steps():
    """A later step is told from an earlier one in grey too."""
    from matplotlib.colors import to_rgb

    for colours in (style.sequence(5), [style.share_map()(i / 10) for i in range(11)]):
        lightness = [
            sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), to_rgb(colour), strict=True)) for colour in colours
        ]
        assert lightness == sorted(lightness, reverse=True)


def test_layers_are_never_named_alike(sigmoids):
    figure = style.new_figure(4, 3)
    axes = figure.subplots()
    names = [f"model.network.layer{i}.1.some_block.conv1" for i in range(1, 5)]
    style.name_layers(axes, names, along="y")
    shown = [text.get_text() for text in axes.get_yticklabels()]
    assert len(set(shown)) == 4
    assert all(text.endswith("some_block.conv1") for text in shown)


@pytest.mark.parametrize("draw", [ladder, gradient_flow, dead_and_linear, histograms_over_time])
def test_the_captions_fit_at_one_layer(draw):
    figure = draw(train(mlp(1, torch.nn.Sigmoid)))
    width, texts = figure.bbox.width, [figure._suptitle, *figure.texts]
    for text in texts:
        assert text.get_window_extent().x1 <= width, text.get_text()
