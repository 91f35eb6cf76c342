import itertools

import pytest

from lightning_tricks.report.names import distinct, shared_path, shortened

RESNET = [f"net.layer{i}.{j}.conv{k}" for i, j, k in itertools.product((1, 2, 3, 4), (0, 1), (1, 2))]
# neither the head nor the tail alone tells these apart, and they are longer than most terminals
LONG = [f"encoder{i}.{'very_long_module.' * 6}{k}.linear" for i, k in itertools.product((1, 2), (3, 4))]


@pytest.mark.parametrize("width", range(45))
def test_a_shortened_name_fits_and_keeps_its_tail(width):
    name = "encoder.layers.11.self_attention.linear_2"
    brief = shortened(name, width)
    assert len(brief) <= width
    assert name.endswith(brief.removeprefix("..."))
    assert width < 16 or brief.endswith(".linear_2")
    assert (brief == name) == (width >= len(name))


def test_the_dots_do_not_run_into_a_dot_of_the_name():
    assert shortened("net.layer1.conv", 8) == "...conv"


@pytest.mark.parametrize("names", [RESNET, LONG, ["a" * 150, "b" + "a" * 149], ["x.y", "x.y", "z.y"], ["net"], []])
@pytest.mark.parametrize("width", [1, 5, 10, 15, 24, 200])
def test_two_names_never_look_alike(names, width):
    labels = distinct(names, width)
    assert len(set(zip(labels, names, strict=True))) == len(set(labels)) == len(set(names))


@pytest.mark.parametrize(
    "names", [RESNET, LONG, ["a" * 150, "b" + "a" * 149], ["x" * 30 + c + "y" * 30 for c in "abc"]]
)
@pytest.mark.parametrize("most", [12, 20, 40])
def test_two_names_never_look_alike_in_little_room(names, most):
    labels = distinct(names, 8, most)
    assert len(set(labels)) == len(names)
    assert max(map(len, labels)) <= most


def test_names_are_no_wider_than_it_takes():
    assert distinct(RESNET, 9)[0] == "...layer1.0.conv1"  # the layer's digit is the first that differs
    assert distinct(RESNET, 9, 13)[0] == "...1.0.conv1"  # no room for the word that it is in
    assert distinct(RESNET, 18) == RESNET
    assert distinct(["net.layer1.0.fc", "net.layer1.10.fc"], 11) == ["...0.fc", "...10.fc"]


@pytest.mark.parametrize(
    ("names", "path"),
    [
        (RESNET, "net"),
        (["a.b.c", "a.b.d.e"], "a.b"),
        (["a.b", "a.b.c"], "a"),  # a name is never used up
        (["net1.a", "net2.a"], ""),
        (["a"], ""),
        ([""], ""),
        ([], ""),
    ],
)
def test_the_shared_path_is_whole_modules(names, path):
    assert shared_path(names) == path
