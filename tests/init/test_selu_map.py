"""The closed form against the numbers published with the paper's code, and against quadrature."""

import math

import pytest
import torch

import lightning_tricks.init as lt_init
from lightning_tricks.init.selu_map import SELU_ALPHA, SELU_SCALE


def box(**sides: tuple[float, float, int]) -> list[torch.Tensor]:
    """A grid over mean, omega, variance, tau; corners included."""
    axes = [torch.linspace(*sides[name], dtype=torch.float64) for name in ("mean", "omega", "variance", "tau")]
    return list(torch.meshgrid(*axes, indexing="ij"))


def six(tensor: torch.Tensor | float) -> str:
    return f"{float(tensor):.6g}"


def test_the_constants_solve_the_fixed_point_equations():
    """alpha from mean 0, scale from variance 1 (appendix A of the paper, its footnote in closed form)."""
    alpha = -math.sqrt(2 / math.pi) / (math.erfc(1 / math.sqrt(2)) * math.exp(0.5) - 1)
    assert pytest.approx(alpha, abs=1e-15) == SELU_ALPHA
    mean, variance = lt_init.selu_moments(0.0, 1.0)
    assert abs(float(mean)) < 1e-15
    assert float(variance) == pytest.approx(1.0, abs=1e-15)
    assert pytest.approx(1.0507009873554804934) == SELU_SCALE


def test_the_published_jacobian():
    jacobian = lt_init.selu_jacobian(0.0, 1.0)
    assert six(jacobian[0, 1]) == "0.0888348"
    assert six(jacobian[1, 1]) == "0.782648"
    assert abs(float(jacobian[0, 0])) < 1e-14
    assert abs(float(jacobian[1, 0])) < 1e-14
    assert six(torch.linalg.svdvals(jacobian)[0]) == "0.787673"


def test_theorem_1_maps_its_domain_into_itself_and_contracts():
    mean, omega, variance, tau = box(
        mean=(-0.1, 0.1, 21), omega=(-0.1, 0.1, 21), variance=(0.8, 1.5, 15), tau=(0.95, 1.1, 7)
    )
    new_mean, new_variance = lt_init.selu_moments(mean, variance, omega, tau)
    assert (six(new_mean.min()), six(new_mean.max())) == ("-0.0310605", "0.0677251")
    assert (six(new_variance.min()), six(new_variance.max())) == ("0.803712", "1.48157")
    jacobian = lt_init.selu_jacobian(mean, variance, omega, tau)
    assert six(torch.linalg.svdvals(jacobian)[..., 0].max()) == "0.897608"


def test_with_tau_down_to_nine_tenths_the_domain_is_left():
    _, variance = lt_init.selu_moments(0.0, 0.8, 0.0, 0.9)
    assert float(variance) < 0.8


def test_theorem_2_large_variance_shrinks():
    mean, omega, variance, tau = box(mean=(-1, 1, 21), omega=(-0.1, 0.1, 21), variance=(3, 16, 14), tau=(0.8, 1.25, 10))
    _, new_variance = lt_init.selu_moments(mean, variance, omega, tau)
    assert six((new_variance - variance).max()) == "-0.119744"


@pytest.mark.parametrize(
    # The smallest growth is at the corner mean = -0.1, omega = -0.1, variance = 0.02; these digits are mpmath's, at 40
    # digits. For the first box the paper's code prints 0.00773618, 1e-7 above the value at that corner.
    ("high", "low_tau", "exact"),
    [(0.16, 0.8, 0.00773608321059), (0.24, 0.9, 0.0110292742044)],
)
def test_theorem_3_small_variance_grows(high, low_tau, exact):
    mean, omega, variance, tau = box(
        mean=(-0.1, 0.1, 11), omega=(-0.1, 0.1, 11), variance=(0.02, high, 23), tau=(low_tau, 1.25, 10)
    )
    _, new_variance = lt_init.selu_moments(mean, variance, omega, tau)
    assert float((new_variance - variance).min()) == pytest.approx(exact, abs=1e-13)


@pytest.mark.parametrize(
    "args", [(0.0, 1.0, 0.0, 1.0), (0.7, 2.0, 0.3, 1.4), (-3.0, 0.5, 1.0, 0.9), (-40.0, 0.3, 1.0, 1.0)]
)
def test_the_closed_form_is_the_integral(args):
    mean, variance, omega, tau = args
    closed = lt_init.selu_moments(*args)
    integral = lt_init.moments("selu", mean * omega, variance * tau)
    assert float(closed[0]) == pytest.approx(integral.mean, abs=1e-12)
    assert float(closed[1]) == pytest.approx(integral.variance, abs=1e-12)


def test_the_jacobian_is_the_derivative():
    mean, variance, omega, tau = 0.05, 1.2, 0.08, 1.05
    jacobian = lt_init.selu_jacobian(mean, variance, omega, tau)
    step = 1e-5
    for column, (dm, dv) in enumerate(((step, 0.0), (0.0, step))):
        up = torch.stack(lt_init.selu_moments(mean + dm, variance + dv, omega, tau))
        down = torch.stack(lt_init.selu_moments(mean - dm, variance - dv, omega, tau))
        assert torch.allclose(jacobian[:, column], (up - down) / (2 * step), atol=1e-9)


def test_nothing_overflows_far_from_the_fixed_point():
    mean, variance = lt_init.selu_moments(torch.tensor([-500.0, 500.0]), torch.tensor([1.0, 400.0]), 1.0, 1.0)
    assert torch.allclose(mean, torch.tensor([-SELU_SCALE * SELU_ALPHA, 500 * SELU_SCALE], dtype=torch.float64))
    assert bool((variance >= -1e-9).all())


def test_the_fixed_point_attracts_and_moves_with_the_weights():
    assert lt_init.selu_fixed_point() == pytest.approx((0.0, 1.0), abs=1e-12)
    point = lt_init.selu_fixed_point(omega=0.05, tau=1.05)
    mean, variance = lt_init.selu_moments(point.mean, point.variance, 0.05, 1.05)
    assert (float(mean), float(variance)) == pytest.approx(point, abs=1e-12)
    with pytest.raises(ValueError, match="no fixed point"):
        lt_init.selu_fixed_point(omega=0.0, tau=0.4)
