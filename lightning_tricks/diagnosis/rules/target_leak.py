"""target_leak: a sequence's output sees the token that it is to predict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy
from lightning_tricks.diagnosis.rule import rule, thresholds
from lightning_tricks.diagnosis.rules.batch_mixing import preflight
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.preflight import Place, PreflightRecord

PROBLEM = "target_leak"
_PREFIX = {"nn.MultiheadAttention": "attn_", "nn.TransformerDecoderLayer": "tgt_", "nn.TransformerEncoderLayer": "src_"}


@thresholds
class LIMITS:
    sees: float = 0.01  # change over std; a causal network's is exactly 0, rounding makes 1e-6 of it
    unshifted: float = 0.995  # share of the targets; denoisers and masked models see another token where they are asked
    next_tokens: float = 0.9  # share of the targets; those of masked models and encoders stand where their input is


@rule(
    PROBLEM,
    "code",
    "overfitting",
    "the targets are visible",
    clause="outputs see what they are to predict",
    reads="thinned",
    table=(16, "a causal mask"),
    needs="preflight",
    order=3,
)
def find_target_leak(history: Sequence[Snapshot]) -> Iterator[Finding]:
    """The targets are the next elements, and outputs change with what is after them; or they were never shifted."""
    first, record = preflight(history)
    if record is None:
        return
    yield from _never_shifted(first, record)
    sees = Criterion("change by later tokens, over std", record.later, ">", LIMITS.sees)
    wanted = Criterion("targets that are the next token", record.next_tokens, ">=", LIMITS.next_tokens)
    if not (sees.holds and wanted.holds):
        return
    place = record.later_place
    where = "" if place is None else f"{place.module or place.function} at {place.layer} is the first that does. "
    explanation = (
        "Outputs that the loss reads change when only the tokens after them are exchanged, and the targets are the "
        f"next tokens: the network copies what it is to predict. {where}Its loss says nothing of how it generates."
    )
    evidence = {"change by later tokens": record.later, "targets that are the next token": record.next_tokens}
    layer, todo = None if place is None else place.layer, _remedies(place)
    yield Finding(PROBLEM, layer, "critical", first, evidence, explanation, todo, decided_by=(sees, wanted))


def _never_shifted(first: int, record: PreflightRecord) -> Iterator[Finding]:
    """Every output of a network that sees nothing later is to give what it was just given, and sees that.

    Not of one that sees nothing at all, as behind dead units, or only what lies before (Germain et al. 2015, MADE).
    """
    blind = Criterion("change by later tokens, over std", record.later, "<=", LIMITS.sees)
    own = Criterion("targets that are the token at their own place", record.unshifted, ">=", LIMITS.unshifted)
    sees = Criterion("change by its own token, over std", record.here, ">", LIMITS.sees)
    decided = (own, blind, *([sees] if sees.holds else []))
    if blind.holds and own.holds and (sees.holds or math.isnan(record.here)):
        explanation = (
            "Every target is the token that the network is given at the same position, and no output depends on later "
            "ones: it is to copy what it has just read. Its loss falls to nothing and says nothing of how it generates."
        )
        todo = Remedy("shift_targets", "ask for the next token: x, y = ids[:, :-1], ids[:, 1:]")
        evidence = {own.name: own.value, "change by later tokens": record.later}
        yield Finding(PROBLEM, None, "critical", first, evidence, explanation, (todo,), decided_by=decided)


def _remedies(place: Place | None) -> tuple[Remedy, ...]:
    mask = "mask=nn.Transformer.generate_square_subsequent_mask(T)"
    if place is None or place.kind not in ("attention", "recurrence", "convolution"):
        return (Remedy("causal_mask", f"let no position see later ones: a causal mask, {mask}"),)
    if place.kind == "recurrence":
        text = f"read in one direction: {place.module or place.function}(bidirectional=False)"
        return (Remedy("causal_mask", text, place.layer),)
    if place.kind == "convolution":
        text = "pad on the left only: F.pad(x, (dilation * (kernel_size - 1), 0)) and padding=0"
        return (Remedy("causal_mask", text, place.layer),)
    if place.function == "scaled_dot_product_attention":
        return (Remedy("causal_mask", "F.scaled_dot_product_attention(..., is_causal=True)", place.layer),)
    called = place.inside or place.module or place.function
    text = f"call {called} with a causal mask: {_PREFIX.get(called, '')}{mask}, is_causal=True"
    return (Remedy("causal_mask", text, place.layer),)
