"""nn.MultiheadAttention's inner projections are seen, and it computes what it computes without a probe."""

import math

import pytest
import torch
from torch import nn

from lightning_tricks.probes import probe


@pytest.mark.parametrize("options", [{}, {"kdim": 6, "vdim": 10}, {"add_bias_kv": True}, {"bias": False},
                                     {"add_zero_attn": True}, {"batch_first": True, "dropout": 0.3}])  # fmt: skip
@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_projections(options, cross, need_weights):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, **options).train()
    query = torch.randn(5, 3, 8)
    if "kdim" in options:
        key, value = torch.randn(5, 3, 6), torch.randn(5, 3, 10)
    else:
        key = value = torch.randn(5, 3, 8) if cross else query
    state = torch.get_rng_state()
    plain, weights = attention(query, key, value, need_weights=need_weights)
    plain.square().sum().backward()
    gradients = [p.grad.clone() for p in attention.parameters()]
    attention.zero_grad()
    torch.set_rng_state(state)
    optimizer = torch.optim.SGD(attention.parameters(), lr=0.1)
    with probe(attention, optimizer) as p:
        output, weights_probed = attention(query, key, value, need_weights=need_weights)
        output.square().sum().backward()
        optimizer.step()
    assert torch.equal(output, plain)
    assert weights is None or torch.equal(weights, weights_probed)
    assert all(torch.equal(p.grad, g) for p, g in zip(attention.parameters(), gradients, strict=True))

    snapshot = p.snapshot()
    assert dict(snapshot.not_seen) == {}
    *inner, last = snapshot.weighted
    same = key is query and value is key
    if "kdim" in options:
        expected = ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
    else:
        expected = ["in_proj_weight"] * (1 if same else 2)
    assert [r.weight for r in inner] == expected
    assert last.weight == "out_proj.weight"
    names = ["linear", *(f"linear_{k}" for k in range(2, len(expected) + 2))]
    assert [r.name for r in snapshot.weighted] == names
    assert all(r.error_signal > 0 for r in snapshot.weighted)
    delta = 2 * output.detach()
    assert last.error_signal == pytest.approx(delta.square().mean().sqrt().item(), rel=1e-5)
    for record in snapshot.parameters:
        if record.name.endswith("weight"):
            assert 0 < record.update_coherence <= 1
            assert not math.isnan(record.mean_drift)


def test_in_float64_the_projections_inputs_outputs_and_drift_are_those_by_hand():
    attention = nn.MultiheadAttention(8, 2, batch_first=True).double()
    optimizer = torch.optim.SGD(attention.parameters(), lr=1e-3)
    x, memory = torch.randn(4, 6, 8, dtype=torch.float64) + 0.5, torch.randn(4, 9, 8, dtype=torch.float64)
    w, b = attention.in_proj_weight.detach().clone(), attention.in_proj_bias.detach().clone()
    q, kv = x @ w[:8].T + b[:8], memory @ w[8:].T + b[8:]
    with probe(attention, optimizer, max_patterns=None) as p:
        attention(x, memory, memory, need_weights=False)[0].pow(3).sum().backward()
        optimizer.step()
    first, second, _ = p.snapshot().weighted
    for record, inputs, outputs in ((first, x, q), (second, memory, kv)):
        assert record.mean == pytest.approx(outputs.mean().item(), rel=1e-9)
        assert record.std == pytest.approx(outputs.flatten(0, 1).var(0, correction=0).mean().sqrt().item(), rel=1e-9)
        assert record.input_mean == pytest.approx(inputs.mean().item(), rel=1e-9)
    new_w, new_b = attention.in_proj_weight.detach(), attention.in_proj_bias.detach()
    moved = [(x @ new_w[:8].T + new_b[:8], q), (memory @ new_w[8:].T + new_b[8:], kv)]
    shifts = torch.cat([(n - o).mean((0, 1)) / o.flatten(0, 1).std(0, correction=0) for n, o in moved])
    parameter = p.snapshot().parameters[0]
    assert parameter.name == "in_proj_weight"
    assert parameter.mean_drift == pytest.approx(shifts.square().mean().sqrt().item(), rel=1e-6)
    dw = (new_w - w).numpy()
    assert parameter.update_coherence == pytest.approx((abs(dw.sum(1)) / abs(dw).sum(1)).mean(), rel=1e-9)
