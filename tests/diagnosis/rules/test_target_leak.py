"""A language model that sees the token it is to predict is named with the mask that it lacks."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from lightning_tricks.diagnosis import diagnose
from lightning_tricks.diagnosis.rules.target_leak import find_target_leak
from lightning_tricks.probes import Snapshot
from lightning_tricks.probes.records.preflight import Place, PreflightRecord
from tests.diagnosis.custom import said
from tests.diagnosis.sick import language

ATTENTION = Place("body.self_attn", "multi_head_attention_forward", "attention", "nn.MultiheadAttention")
SEEN = PreflightRecord("", 64, 0.0, 0.0, 1.0, None, 0.3, ATTENTION, 1.0)


def find(record: PreflightRecord) -> list[tuple[str, str | None]]:
    return said(find_target_leak([Snapshot(preflight=record)]))


def test_a_missing_mask_is_named_first() -> None:
    torch.manual_seed(0)
    history = language(causal=False)
    found = find_target_leak(history)
    assert said(found) == [("critical", "body.self_attn")]
    assert "src_mask=nn.Transformer.generate_square_subsequent_mask(T)" in found[0].remedies[0].text
    assert diagnose(history).findings[0].problem == "target_leak"
    stored = [Snapshot.from_dict(snapshot.to_dict()) for snapshot in history]
    assert said(find_target_leak(stored)) == said(found)


def test_a_causal_model_is_healthy() -> None:
    torch.manual_seed(0)
    history = language(causal=True, steps=20)
    assert history[0].preflight is not None
    assert history[0].preflight.next_tokens == 1.0
    assert find_target_leak(history) == []


def test_both_have_to_be_so() -> None:
    assert find(SEEN) == [("critical", "body.self_attn")]
    assert find(dataclasses.replace(SEEN, next_tokens=0.5)) == []  # a masked model
    assert find(dataclasses.replace(SEEN, later=1e-6)) == []
    assert find(PreflightRecord()) == []
    assert find_target_leak([Snapshot()]) == []


REMEDIES = {
    "attn_mask=": ATTENTION,
    "tgt_mask=": dataclasses.replace(ATTENTION, inside="nn.TransformerDecoderLayer"),
    "F.scaled_dot_product_attention(..., is_causal=True)": Place("attend", "scaled_dot_product_attention", "attention"),
    "nn.GRU(bidirectional=False)": Place("gru", "gru", "recurrence", "nn.GRU"),
    "pad on the left only": Place("conv", "conv1d", "convolution", "nn.Conv1d"),
    "let no position see later ones": Place("matmul", "matmul"),
}


@pytest.mark.parametrize("text", REMEDIES)
def test_the_argument_is_named(text: str) -> None:
    (found,) = find_target_leak([Snapshot(preflight=dataclasses.replace(SEEN, later_place=REMEDIES[text]))])
    assert text in found.remedies[0].text


def test_targets_that_were_never_shifted_are_named() -> None:
    copied = dataclasses.replace(SEEN, next_tokens=math.nan, unshifted=1.0, later=0.0, later_place=None)
    (found,) = find_target_leak([Snapshot(preflight=copied)])
    assert said([found]) == [("critical", None)]
    assert "ids[:, :-1], ids[:, 1:]" in found.remedies[0].text
    assert find(dataclasses.replace(copied, here=0.5)) != []
    assert find(dataclasses.replace(copied, here=0.0)) == []  # sees nothing of what it is to copy
    assert find(dataclasses.replace(copied, later=0.3)) == []  # an autoencoder
    assert find(dataclasses.replace(copied, unshifted=math.nan)) == []
    assert find(dataclasses.replace(copied, later=math.nan)) == []
