"""batch_mixing: what the network says of a pattern depends on which others are in its batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy, Severity, Trait
from lightning_tricks.diagnosis.history.learning import little_learned, stands_still
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.preflight import Place, PreflightRecord

PROBLEM = "batch_mixing"


@thresholds
class LIMITS:
    mixes: float = 0.05  # change over std: of experts with capacity .78, graph networks 1.5, set attention 2.5
    by_chance: float = 1e-4  # the same, of patterns that a loader puts together one by one: without mixing 0, or 1e-7
    own: float = 0.005  # change below which an output does not know its own input: what a repeated call may differ by


@rule(
    PROBLEM,
    "code",
    "vanishing_gradient exploding_gradient collapsed_output output_mismatch poor_initialization linearity saturation "
    "dead_units bias_shift learning_rate_too_high learning_rate_too_low overfitting",
    "patterns are mixed",
    clause="the patterns of a batch are mixed",
    clauses={Trait.PADDING: "padding is read like data"},
    reads="thinned",
    table=(16, "the axis or argument that is named"),
    needs="preflight",
    order=2,
)
def find_batch_mixing(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """An output depends on the other patterns of its batch: they met there by chance, or nothing is learned."""
    first, record = preflight(history)
    if record is None:
        return
    place = record.place
    named = place is not None and is_named(place)
    by_chance = record.collated and named and place is not None and not is_sequence(place)
    most = LIMITS.by_chance if by_chance else LIMITS.mixes
    mixes = Criterion("change by the other patterns, over std", record.mixing, ">", most)
    lost = Criterion("change by its own input, over std", record.own, "<=", LIMITS.own)
    if not mixes.holds and not (lost.holds and place is not None):
        return
    harmed = stands_still(history) or (place is not None and is_exchanged(place) and little_learned(history))
    severity: Severity = "warning" if (named and harmed) or (by_chance and mixes.holds) else "info"
    explanation = (
        f"{_where(place)}What the network says of a pattern "
        + ("depends on the others of its batch" if mixes.holds else "does not depend on the pattern")
        + ": in evaluation mode the others were exchanged. "
        + ("With other batches it answers otherwise." if mixes.holds else "What it gives is the same for all of them.")
    )
    why = tuple(criterion for criterion in (mixes, lost) if criterion.holds)
    todo = remedies_at(place) if place is not None and named else (ASK,)
    layer = None if place is None else place.layer
    yield Finding(PROBLEM, layer, severity, first, _evidence(record), explanation, todo, decided_by=why)


def preflight(history: Sequence[Snapshot]) -> tuple[int, PreflightRecord | None]:
    """The step of the latest look at who depends on whom, and what it showed."""
    looks = ((snapshot.step, snapshot.preflight) for snapshot in reversed(history) if snapshot.preflight is not None)
    return next(looks, (0, None))


ASK = Remedy("check_axes", "look whether patterns are to see each other: if not, an operation runs over their axis")


def is_named(place: Place) -> bool:
    """Whether it is an operation that runs over the patterns' axis by an argument that can be changed."""
    if place.kind in ("attention", "recurrence"):
        return place.batch_first is not None
    if place.kind in ("softmax", "cumulation"):
        return place.dim is not None and place.dim == place.output_axis
    if place.kind == "reduction":
        return True
    return place.kind == "view" and place.input_axis is not None and place.input_axis != place.output_axis


def is_exchanged(place: Place) -> bool:
    """Whether the patterns lie where the operation expects something else, which lies in their place."""
    return place.kind == "view" or (place.kind in ("attention", "recurrence") and not is_sequence(place))


def is_sequence(place: Place) -> bool:
    """Whether a module was given all patterns as one sequence, ``[1, N, units]``, and so is meant to run over them."""
    shape, axis = place.input_shape, place.input_axis
    return place.kind in ("attention", "recurrence") and not (
        len(shape) == 3 and axis in (0, 1) and shape[1 - axis] > 1
    )


def remedies_at(place: Place) -> tuple[Remedy, ...]:
    """The argument to change."""
    if place.kind in ("attention", "recurrence"):
        text = f"{place.inside or place.module}(..., batch_first={not place.batch_first})"
        return (Remedy("change_axis", f"say which axis is the batch's: {text}", place.layer),)
    if place.kind == "view":
        axes = sorted({place.input_axis or 0, place.output_axis or 0})
        text = (
            f"swap the axes before, .transpose({axes[0]}, {axes[-1]}).reshape(...) in place of .{place.function}(...)"
        )
        return (Remedy("change_axis", text, place.layer),)
    other = next((axis for axis in range(len(place.input_shape) - 1, -1, -1) if axis != place.dim), 0)
    call = place.module or place.function
    return (Remedy("change_axis", f"let it run over the units: {call}(dim={other})", place.layer),)


def _where(place: Place | None) -> str:
    if place is None:
        return ""
    what, shape = place.module or place.function, list(place.input_shape)
    if place.kind == "view":
        return f"{what} at {place.layer} makes {list(place.output_shape)} of {shape}: it cuts across the patterns. "
    if is_named(place):
        axis = place.dim if place.dim is not None else place.input_axis
        over = f" over axis {axis} of {shape}" if axis is not None else ""
        return f"{what} at {place.layer} runs{over}, along which the patterns lie. "
    return f"{what} at {place.layer} is the first call that mixes them. "


def _evidence(record: PreflightRecord) -> dict[str, object]:
    place = record.place
    evidence: dict[str, object] = {
        "change by the other patterns": record.mixing,
        "change by its own input": record.own,
        "patterns": record.patterns,
    }
    if place is not None:
        evidence["operation"] = place.module or place.function
    return evidence
