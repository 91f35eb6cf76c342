"""Layer names in little room: what all share is said once, the tail is kept, and no two look alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_DOTS = "..."


def shared_path(names: Iterable[str]) -> str:
    """The leading modules that all names have in common; at least the last part of each name stays.

    >>> shared_path(["model.net.0", "model.net.1.fc"]), shared_path(["net.0", "head"])
    ('model.net', '')
    """
    parents = [name.split(".")[:-1] for name in names]
    shared: list[str] = []
    for parts in zip(*parents, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def shortened(name: str, width: int, head: int = 0) -> str:
    """A name in so many letters: its tail behind dots, and before them so many letters of its head.

    >>> [shortened("net.layer4.1.conv1", width) for width in (18, 15, 9)]
    ['net.layer4.1.conv1', '...yer4.1.conv1', '...conv1']
    >>> shortened("net.layer4.1.conv1", 15, head=3)
    'net...4.1.conv1'
    """
    if len(name) <= width:
        return name
    tail = width - len(_DOTS) - head
    if tail < 1:
        return name[len(name) - max(width, 0) :]
    return name[:head] + _DOTS + name[-tail:].lstrip(".")


def distinct(names: Sequence[str], width: int, most: int | None = None) -> list[str]:
    """The names shortened to ``width``, or wider, up to ``most`` letters, until different names look different.

    Whole modules are dropped as long as that is enough. Where ``most`` is too little for the tails to differ, letters
    of the head are kept; in the last resort the names are numbered.

    >>> distinct(["net.layer1.1.conv1", "net.layer4.1.conv1"], 17), distinct(["a_long_one.1.fc", "a_long_one.2.fc"], 12)
    (['...layer1.1.conv1', '...layer4.1.conv1'], ['...1.fc', '...2.fc'])
    """
    longest = max(map(len, names), default=0)
    most = longest if most is None else min(most, longest)
    width = min(width, longest)
    for wider in range(width, most + 1):
        labels = [_whole_modules(name, wider) for name in names]
        if len(set(labels)) == len(set(names)):
            return labels
    cuts = [(wider, 0) for wider in range(width, most + 1)]
    cuts += [(max(most, width), head) for head in range(1, max(most, width) - len(_DOTS))]
    for letters, head in cuts or [(width, 0)]:
        labels = [shortened(name, letters, head) for name in names]
        if len(set(labels)) == len(set(names)):
            return labels
    numbers = {name: f"#{i}" for i, name in enumerate(dict.fromkeys(names), 1)}
    return [numbers[name] + shortened(name, max(most, width) - len(numbers[name])) for name in names]


def _whole_modules(name: str, width: int) -> str:
    """The name without so many of its leading modules that it fits; cut inside of the last part if that is longer."""
    if len(name) <= width:
        return name
    parts = name.split(".")
    tails = (_DOTS + ".".join(parts[i:]) for i in range(1, len(parts)))
    return next((tail for tail in tails if len(tail) <= width), shortened(name, width))
