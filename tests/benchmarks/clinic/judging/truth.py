"""Which layers are right to be named, as the probe names them."""

from __future__ import annotations

from lightning_tricks.probes import Probe, Snapshot

from .. import data as datasets
from ..case import Case, Fault
from ..faults import KINDS
from ..networks.network import Network
from ..setup import healthy
from ..train import Training


def snapshot_of(case: Case) -> tuple[Snapshot, Network]:
    """One probed step of the case without its fault, in the module that will be trained, and its network."""
    setup = healthy(case.twin)
    module = Training(setup)
    batch = datasets.batches(setup.data, 32, 1, seed=0)[0]
    with Probe(module) as probe:
        module.loss_of(*batch).backward()
    return probe.snapshot(), setup.network


def names_of(snapshot: Snapshot, network: Network, place: int) -> list[str]:
    """The recorded names of a hidden layer: its weighted operations, its normalisation, its activations."""
    spot = network.places[place]
    path = f"net.{spot.weighted}"
    owners = [record.name for record in snapshot.parameters if record.name.rpartition(".")[0] == path]
    layers = sorted((*snapshot.weighted, *snapshot.activations), key=lambda record: record.order)
    found: list[str] = []
    inside = False
    for record in layers:
        if hasattr(record, "operation"):
            inside = record.weight in owners
        if inside:
            found.append(record.name)
    if not found:
        raise LookupError(f"the probe saw nothing of {path}")
    return [*found, *([f"net.{spot.norm}"] if spot.norm else [])]


def layers_of(case: Case, fault: Fault) -> frozenset[str | None]:
    """The names that are right for a fault; None where the whole model or the training is to blame.

    - place, last: the weighted operation, normalisation or activation of that, or the last, hidden layer;
    - behind: what stands between a place and the next weighted layer harms the one and is made by the other: both;
    - behind first: the same of all hidden layers: the first of them, the weighted layer behind it, or none;
    - body, or a place of None: a fault of all hidden layers: the first of them, or none;
    - cut: the place behind which the graph is cut, or the first of the layers that no gradient reaches;
    - input, output: the first or last weighted layer, what is plugged before the last, or none, as data and loss are
      no layers;
    - crossing: the module in which positions meet, its parts and layers, or none;
    - plug: the plug of a place, or as behind, or none;
    - anywhere: any layer, or none, as all of them bear it;
    - norms: the first normalisation with its layer, or none; training: none; spare: the layer that is not used.
    """
    where = KINDS[fault.kind].where
    snapshot, network = snapshot_of(case)
    weighted = [record.name for record in snapshot.weighted]
    if where == "training":
        return frozenset({None})
    if where == "spare":
        return frozenset({"net.spare", "net.spare.weight", "net.spare.bias"})
    if where == "input":
        return frozenset({weighted[0], None})
    if where == "output":
        path = f"net.{network.output}"
        plugs = {f"net.{place.plug}" for place in network.places[-1:]}
        return frozenset({path, "net.out", None, *plugs})
    if where == "anywhere":
        return frozenset({None, *(record.name for record in snapshot.records())})
    if where == "crossing":
        within = {name for name, _ in network.named_modules() if f"{name}.".startswith(f"{network.crossing}.")}
        recorded = {record.name for record in snapshot.records() if record.name.startswith(f"net.{network.crossing}.")}
        return frozenset({None, *(f"net.{name}" for name in within), *recorded})
    place = len(network.places) - 1 if where == "last" else (fault.place or 0) % len(network.places)
    names: set[str | None] = set(names_of(snapshot, network, place))
    if where == "plug":
        names |= {None, f"net.{network.places[place].plug}"}
    if where in ("behind", "behind first", "plug"):
        last = max(weighted.index(name) for name in names if name in weighted)
        names |= {*weighted[last + 1 : last + 2], *((None,) if where == "behind first" else ())}
    elif where == "body" or (where == "place" and fault.place is None):
        names |= {None, weighted[0]}
    elif where == "cut":
        names |= {weighted[0], *names_of(snapshot, network, 0)}
    elif where == "norms":
        first = snapshot.normalizations[0].name if snapshot.normalizations else None
        names |= {None, first}
    return frozenset(names)
