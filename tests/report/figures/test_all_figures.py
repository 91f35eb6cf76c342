import dataclasses

import pytest

from lightning_tricks.probes import Snapshot
from lightning_tricks.report import all_figures, dead_and_linear, gradient_flow, histograms_over_time, ladder, save_all

NAMES = ["ladder", "gradient_flow", "histograms", "dead_and_linear"]


@pytest.mark.parametrize("subject", ["sigmoids", "rectifiers", "deep", "spoilt"])
def test_every_figure_is_written(subject, request, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_tricks.report.figures.style._DPI", 40)
    paths = save_all(request.getfixturevalue(subject), tmp_path / "new")
    assert [path.name for path in paths] == [f"{name}.png" for name in NAMES]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_a_model_without_activations_has_two(linear, tmp_path):
    assert list(all_figures(linear)) == NAMES[:2]


@pytest.mark.parametrize("history", [[], [Snapshot()]])
def test_without_a_history_there_is_none(history, tmp_path):
    assert all_figures(history) == {}
    assert save_all(history, tmp_path / "new") == []
    assert not (tmp_path / "new").exists()
    for draw in (ladder, gradient_flow, histograms_over_time, dead_and_linear):
        assert "was looked at yet" in draw(history).texts[0].get_text()


def test_no_window_is_opened(sigmoids):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    all_figures(sigmoids)
    assert pyplot.get_fignums() == before


def test_a_light_history_draws_the_same(sigmoids):
    light = [snapshot.light() for snapshot in sigmoids]
    for name, figure in all_figures(light).items():
        for ours, theirs in zip(figure.axes, all_figures(sigmoids)[name].axes, strict=True):
            assert [list(a.get_ydata()) for a in ours.get_lines()] == [list(a.get_ydata()) for a in theirs.get_lines()]


def test_layers_that_come_and_go(sigmoids, rectifiers, tmp_path):
    mixed = [sigmoids[0], dataclasses.replace(rectifiers[0], step=1), dataclasses.replace(sigmoids[1], activations=())]
    assert len(save_all(mixed, tmp_path)) == 4
