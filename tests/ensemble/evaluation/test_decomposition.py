"""Error, ambiguity and correlation against naive sums."""

import matplotlib
import pytest
import torch

from lightning_tricks.ensemble import EnsembleDecomposition, decompose, plot_error_by_size

matplotlib.use("Agg")


def made(members=6, patterns=50, outputs=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(patterns, outputs, generator=generator, dtype=torch.float64)
    common = torch.randn(patterns, outputs, generator=generator, dtype=torch.float64)
    own = torch.randn(members, patterns, outputs, generator=generator, dtype=torch.float64)
    return target + 0.4 * common + own * torch.linspace(0.5, 1, members).view(-1, 1, 1), target


def test_against_loops():
    members, target = made()
    found = decompose(members, target)
    count = len(members)
    mean = sum(members) / count
    errors = [float(((f - target) ** 2).sum(1).mean()) for f in members]
    ambiguity = sum(float(((f - mean) ** 2).sum(1).mean()) for f in members) / count
    cross = [
        float(((members[k] - target) * (members[l] - target)).sum(1).mean())
        for k in range(count)
        for l in range(count)  # noqa: E741
        if k != l
    ]
    assert found.member_errors.tolist() == pytest.approx(errors, abs=1e-13)
    assert float(found.ensemble_error) == pytest.approx(float(((mean - target) ** 2).sum(1).mean()), abs=1e-13)
    assert float(found.ambiguity) == pytest.approx(ambiguity, abs=1e-13)
    rho = sum(cross) / len(cross) / (sum(errors) / count)
    assert float(found.correlation) == pytest.approx(rho, abs=1e-13)
    assert found.mean_errors.shape == (count, 3)
    assert torch.allclose(found.mean_errors, (members - target).mean(1))


def test_identities():
    found = decompose(*made())
    assert abs(float(found.ensemble_error - (found.mean_member_error - found.ambiguity))) < 1e-12
    assert abs(float(found.ratio - found.predicted_ratio())) < 1e-10
    assert abs(float(found.error_by_size[-1] - found.ensemble_error)) < 1e-12


def test_error_by_size_is_that_of_the_first_members():
    members, target = made()
    sizes = decompose(members, target).error_by_size
    for size in range(1, 7):
        assert float(sizes[size - 1]) == pytest.approx(float(decompose(members[:size], target).ensemble_error))


def test_uncorrelated_errors_fall_as_one_over_k():
    generator = torch.Generator().manual_seed(1)
    members = torch.randn(10, 20000, generator=generator)
    found = decompose(members, torch.zeros(20000))
    assert float(found.correlation) == pytest.approx(0.0, abs=0.005)
    assert float(found.ratio) == pytest.approx(0.1, abs=0.005)
    assert float(found.inequality) < 0.05


def test_batches_add_up_and_classes_are_one_hot():
    probabilities = torch.rand(4, 30, 5, dtype=torch.float64).softmax(-1)
    classes = torch.randint(5, (30,))
    metric = EnsembleDecomposition(4)
    for start in range(0, 30, 10):
        metric.update(probabilities[:, start : start + 10], classes[start : start + 10])
    whole = decompose(probabilities, torch.nn.functional.one_hot(classes, 5))
    assert torch.allclose(metric.compute().products, whole.products)
    assert torch.allclose(metric.compute().mean_errors, whole.mean_errors)


def test_one_member_has_no_correlation():
    found = decompose(*(value[:1] if index == 0 else value for index, value in enumerate(made())))
    assert found.member_errors.shape == (1,)
    assert float(found.correlation) != float(found.correlation)
    assert float(found.ambiguity) == 0.0


def test_errors():
    with pytest.raises(ValueError, match="not of num_members=3"):
        EnsembleDecomposition(3).update(torch.zeros(2, 4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"targets of shape \(5,\) do not fit"):
        decompose(torch.zeros(2, 4), torch.zeros(5))


def test_plot_shows_what_was_measured():
    members, target = made()
    metric = EnsembleDecomposition(6)
    metric.update(members, target)
    axes = metric.plot().axes[0]
    measured = next(line for line in axes.lines if line.get_label().startswith("measured"))
    assert list(measured.get_ydata()) == pytest.approx(metric.compute().error_by_size.tolist())
    assert plot_error_by_size(metric.compute(), ax=axes) is axes.figure
