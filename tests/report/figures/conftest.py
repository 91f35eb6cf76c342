import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")


def curve(axes, label):
    """The heights of the line whose label begins so."""
    (found,) = [line for line in axes.get_lines() if str(line.get_label()).startswith(label)]
    return np.asarray(found.get_ydata(), float)


@pytest.fixture(name="curve")
def _curve():
    return curve
