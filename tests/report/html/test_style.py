"""The colours of the page: neighbours in a scale are told apart, with every kind of colour blindness too."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import lightning_tricks.report.html as room

STYLE = (Path(room.__file__).parent / "style.css").read_text()
# Machado, Oliveira & Fernandes 2009, severity 1, of linear RGB.
SEEN = {
    "all": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
LEAST = 10.0  # of the CIE's delta E: about five times what an eye just notices


def lab(colour, seen):
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(np.array(SEEN[seen]) @ linear, 0, 1) / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def colours(scheme):
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")
    text = light if scheme == "light" else dark.partition("* {")[0]
    return dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", text))


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("scale", "levels"), [("s", 7), ("d", 9)])
def test_levels_are_told_apart(scheme, scale, levels, seen):
    known = colours(scheme)
    found = [lab(known[f"{scale}{k}"], seen) for k in range(levels)]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(found, 2)]
    assert min(distances) >= LEAST


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_strong_colour_is_far_from_the_paper(scheme):
    known = colours(scheme)
    lightness = [lab(known[f"s{k}"], "all")[0] for k in range(7)]
    assert lightness == sorted(lightness, reverse=scheme == "light")
    assert abs(lightness[0] - lab(known["paper"], "all")[0]) < 15
