"""Ghost batch normalisation against the loop over groups that it replaces."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_tricks.nn.batch_norm import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d, ghost_groups

LAYERS = {(): GhostBatchNorm1d, (6,): GhostBatchNorm1d, (5, 3): GhostBatchNorm2d, (3, 2, 4): GhostBatchNorm3d}


def group_members(samples, ghost_size, values=1):
    """The sample numbers of every group, written from the documented rule: sizes differ by one at most, the larger
    groups first, and inside a run of equally large groups every n-th sample."""
    count = -(-samples // ghost_size)
    if values == 1:
        count = max(1, min(count, samples // 2))
    sizes = [len(part) for part in torch.arange(samples).tensor_split(count)]
    members, start = [], 0
    for size in sorted(set(sizes), reverse=True):
        same = sizes.count(size)
        members += [list(range(start + k, start + same * size, same)) for k in range(same)]
        start += same * size
    return members


def randomized(layer):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(layer.weight.shape, generator=generator) + 0.5)
        layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator))
    return layer


@pytest.fixture
def one_thread():
    """With more threads than rows in a group, torch's kernel sums wide and narrow tables in different order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("spatial", LAYERS, ids=str)
def test_every_remainder_is_bit_identical_to_the_loop_over_groups(spatial):
    channels = 5
    for ghost_size in (1, 2, 3, 4, 7, 32):
        if ghost_size == 1 and not spatial:
            continue  # groups of one table row have no statistics; see the test of small groups
        for samples in (2, 3, 4, 5, 7, 8, 9, 12, 13, 31, 32, 33, 65):
            layer = randomized(LAYERS[spatial](channels, ghost_size=ghost_size, momentum=0.25))
            x = torch.randn(samples, channels, *spatial) * 3 + 1
            y = layer(x)
            members = group_members(samples, ghost_size, values=x[0, 0].numel())
            assert sorted(n for member in members for n in member) == list(range(samples))
            means, variances = torch.zeros(channels), torch.zeros(channels)
            for member in members:
                mean, variance = torch.zeros(channels), torch.ones(channels)
                expected = F.batch_norm(x[member], mean, variance, layer.weight, layer.bias, True, 1.0)
                assert torch.equal(y[member], expected), (ghost_size, samples)
                means += mean * len(member) / samples
                variances += variance * len(member) / samples
            torch.testing.assert_close(layer.running_mean, 0.25 * means)
            torch.testing.assert_close(layer.running_var, 0.75 + 0.25 * variances)
            assert layer.num_batches_tracked == 1


@pytest.mark.parametrize("threads", [2, 4])
def test_several_threads(one_thread, threads):
    torch.set_num_threads(threads)
    for size, exact in ((2, False), (5, True)):  # fewer rows than threads: to rounding
        layer = randomized(GhostBatchNorm1d(32, ghost_size=size))
        x = torch.randn(20, 32)
        y = layer(x)
        for member in group_members(20, size):
            expected = F.batch_norm(x[member], None, None, layer.weight, layer.bias, True)
            torch.testing.assert_close(y[member], expected, rtol=1e-5, atol=1e-5)
            assert not exact or torch.equal(y[member], expected)


def test_the_gradients_are_those_of_the_loop():
    layer = randomized(GhostBatchNorm2d(4, ghost_size=8)).double()
    x = torch.randn(21, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(x)
    got = torch.autograd.grad(layer(x), (x, layer.weight, layer.bias), upstream)
    members = group_members(21, 8, values=9)
    outputs = [F.batch_norm(x[m], None, None, layer.weight, layer.bias, True) for m in members]
    expected = torch.autograd.grad(outputs, (x, layer.weight, layer.bias), [upstream[m] for m in members])
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_gradcheck():
    layer = randomized(GhostBatchNorm1d(3, ghost_size=4)).double()
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)

    def run(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(run, (x, layer.weight, layer.bias))


def test_a_batch_smaller_than_the_ghost_size_is_batch_norm():
    ghost, plain = GhostBatchNorm2d(3, ghost_size=32), nn.BatchNorm2d(3)
    x = torch.randn(5, 3, 4, 4)
    assert torch.equal(ghost(x), plain(x))
    torch.testing.assert_close(ghost.state_dict(), plain.state_dict())


def test_small_groups_of_table_rows_join_another():
    assert ghost_groups(3, 2) == [(0, 3, 1)]
    assert ghost_groups(3, 2, values_per_sample=4) == [(0, 2, 1), (2, 3, 1)]
    layer = GhostBatchNorm1d(4, ghost_size=1)
    assert layer(torch.randn(5, 4)).isfinite().all()


def test_eval_is_batch_norm_with_the_running_statistics():
    ghost, plain = GhostBatchNorm1d(6, ghost_size=4), nn.BatchNorm1d(6)
    for _ in range(3):
        ghost(torch.randn(10, 6) * 2 + 1)
    plain.load_state_dict(ghost.state_dict())
    x = torch.randn(1, 6)
    assert torch.equal(ghost.eval()(x), plain.eval()(x))


def test_without_momentum_the_running_statistics_are_the_plain_average():
    layer = GhostBatchNorm1d(4, momentum=None, ghost_size=5)
    batches = [torch.randn(10, 4) + k for k in range(6)]
    for batch in batches:
        layer(batch)
    torch.testing.assert_close(layer.running_mean, torch.cat(batches).mean(0))
    groups = [batch[k::2].var(0) for batch in batches for k in (0, 1)]
    torch.testing.assert_close(layer.running_var, torch.stack(groups).mean(0))


def test_without_running_statistics_eval_normalises_in_groups_as_training_does():
    layer = GhostBatchNorm1d(4, track_running_stats=False, ghost_size=5)
    x = torch.randn(10, 4)
    assert torch.equal(layer(x), layer.eval()(x))


@pytest.mark.parametrize("samples", [8, 11, 65])
def test_channels_last_keeps_its_layout_and_takes_runs_of_samples(samples):
    layer = randomized(GhostBatchNorm2d(6, ghost_size=4, momentum=1.0))
    x = torch.randn(samples, 6, 5, 5).contiguous(memory_format=torch.channels_last)
    y = layer(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    parts = x.tensor_split(-(-samples // 4))
    expected = [F.batch_norm(part, None, None, layer.weight, layer.bias, True) for part in parts]
    assert torch.equal(y, torch.cat(expected))
    means = sum(len(part) / samples * part.mean((0, 2, 3)) for part in parts)
    variances = sum(len(part) / samples * part.transpose(0, 1).flatten(1).var(1) for part in parts)
    torch.testing.assert_close(layer.running_mean, means)
    torch.testing.assert_close(layer.running_var, variances)


def test_a_transposed_input_works():
    x = torch.randn(6, 8).t()
    assert torch.equal(GhostBatchNorm1d(6, ghost_size=4)(x), GhostBatchNorm1d(6, ghost_size=4)(x.contiguous()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GhostBatchNorm1d(8, ghost_size=0), "ghost_size must be at least 1 sample, got 0"),
        (lambda: GhostBatchNorm1d(8, 4), r"eps, .* got 4; did you mean ghost_size=4\?"),
        (lambda: GhostBatchNorm2d(8, 4), r"did you mean ghost_size=4\?"),
        (lambda: GhostBatchNorm3d(8, 4), r"did you mean ghost_size=4\?"),
        (lambda: GhostBatchNorm1d(8, -0.5), r"eps, .* got -0\.5$"),
        (lambda: GhostBatchNorm1d(0), "num_features must be at least 1, got 0"),
        (lambda: GhostBatchNorm1d(8, momentum=1.5), "momentum"),
        (lambda: GhostBatchNorm2d(8)(torch.randn(4, 3, 5, 5)), "got 3 channels .* expected 8"),
        (lambda: GhostBatchNorm2d(8)(torch.randn(4, 8, 5)), "expected 4D"),
        (lambda: GhostBatchNorm1d(8)(torch.randn(1, 8)), "GhostBatchNorm1d.8.* fewer than 2 values .*drop_last"),
        (lambda: GhostBatchNorm1d(8)(torch.randn(0, 8)), "fewer than 2 values"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_error_leaves_the_running_statistics():
    layer = GhostBatchNorm1d(8)
    with pytest.raises(ValueError):
        layer(torch.randn(1, 8))
    torch.testing.assert_close(layer.state_dict(), GhostBatchNorm1d(8).state_dict())
