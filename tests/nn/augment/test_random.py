"""Random movements and noise: an own draw for every sample, from a generator, off in evaluation, any dtype."""

import pytest
import torch

import lightning_tricks as lt

MODULES = {
    "affine": lambda **options: lt.nn.RandomAffine(flip=0.5, **options),
    "elastic": lambda **options: lt.nn.ElasticDeformation(20.0, 3.0, **options),
    "noise": lambda **options: lt.nn.AdditiveNoise((0.1, 0.3), **options),
}
EVERY = pytest.mark.parametrize("name", MODULES)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@EVERY
def test_every_sample_has_a_draw_of_its_own(name):
    one = torch.randn(1, 3, 16, 16)
    found = MODULES[name]()(one.expand(8, 3, 16, 16), generator=seeded())
    different = [(found[i] - found[j]).abs().max() > 1e-3 for i in range(8) for j in range(i)]
    assert all(different)


@EVERY
def test_a_generator_makes_it_reproducible_and_the_global_numbers_stay(name):
    x, module = torch.randn(4, 2, 12, 12), MODULES[name]()
    before = torch.get_rng_state()
    first = module(x, generator=seeded(1))
    assert torch.equal(first, module(x, generator=seeded(1)))
    assert not torch.equal(first, module(x, generator=seeded(2)))
    assert torch.equal(torch.get_rng_state(), before)


@EVERY
def test_evaluation_gives_the_input_itself(name):
    x = torch.randn(4, 2, 12, 12)
    assert MODULES[name]().eval()(x) is x


@EVERY
@pytest.mark.parametrize("channels", [1, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_channels_and_dtype(name, channels, dtype):
    x = torch.randn(4, channels, 12, 10).to(dtype)
    found = MODULES[name]()(x, generator=seeded())
    assert found.dtype == dtype
    assert found.shape == x.shape
    wide = MODULES[name]()(x.to(torch.promote_types(dtype, torch.float32)), generator=seeded())
    torch.testing.assert_close(found, wide.to(dtype))


@EVERY
def test_a_share_of_the_samples_stays_as_it_is(name):
    x = torch.randn(400, 1, 8, 8)
    found = MODULES[name](p=0.3)(x, generator=seeded())
    moved = (found - x).flatten(1).abs().amax(1) > 1e-4
    assert 0.2 < float(moved.double().mean()) < 0.4
    assert torch.equal(MODULES[name](p=0.0)(x), x)


def test_draws_fill_their_ranges():
    warp = lt.nn.RandomAffine(0.0, 0.2, (0.5, 2.0), 0.0, flip=0.25).draw(torch.zeros(4000, 1, 4, 4), seeded())
    scale = warp.matrix[:, 1, 1]
    flipped = warp.matrix[:, 0, 0] < 0
    assert float(scale.min()) < 0.51
    assert float(scale.max()) > 1.99
    assert float(scale.mean()) == pytest.approx(1.25, abs=0.03)
    assert float(flipped.double().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(warp.shift.abs().max()) == pytest.approx(0.2, abs=0.01)
    assert float(warp.shift.mean()) == pytest.approx(0.0, abs=0.01)


def test_nothing_to_do_is_the_identity():
    x = torch.randn(3, 2, 9, 11)
    still = lt.nn.RandomAffine(0.0, 0.0, (1.0, 1.0), 0.0)
    torch.testing.assert_close(still(x), x, rtol=0, atol=1e-5)
    torch.testing.assert_close(lt.nn.ElasticDeformation(0.0)(x), x, rtol=0, atol=1e-5)


def test_noise_is_of_the_size_that_each_sample_drew():
    found = lt.nn.AdditiveNoise((0.5, 2.0))(torch.zeros(500, 2000), generator=seeded()).std(1)
    assert 0.45 < float(found.min()) < 0.55
    assert 1.9 < float(found.max()) < 2.1
    assert float(found.mean()) == pytest.approx(1.25, abs=0.05)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: lt.nn.RandomAffine(-1.0), "degrees"),
        (lambda: lt.nn.RandomAffine(scale=(1.1, 0.9)), "lowest <= highest"),
        (lambda: lt.nn.RandomAffine(shear=90.0), "under 90"),
        (lambda: lt.nn.RandomAffine(flip=2.0), "flip"),
        (lambda: lt.nn.RandomAffine(p=1.5), r"in \[0, 1\]"),
        (lambda: lt.nn.RandomAffine(padding="wrap"), "zeros, border, reflection"),
        (lambda: lt.nn.ElasticDeformation(sigma=0.0), "sigma"),
        (lambda: lt.nn.ElasticDeformation(-1.0), "alpha"),
        (lambda: lt.nn.AdditiveNoise((0.3, 0.1)), "lowest, highest"),
        (lambda: lt.nn.RandomAffine()(torch.zeros(4, 8, 8)), r"\(B, C, H, W\)"),
    ],
)
def test_wrong_values_are_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_whole_numbers_are_refused_with_the_cure():
    with pytest.raises(TypeError, match=r"x.float\(\) / 255"):
        lt.nn.RandomAffine()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@EVERY
def test_gradients_go_through(name):
    x = torch.randn(2, 1, 8, 8, requires_grad=True)
    MODULES[name]()(x).sum().backward()
    assert float(x.grad.abs().sum()) > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@EVERY
def test_on_the_batchs_device(name):
    x = torch.randn(4, 3, 16, 16, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    assert MODULES[name]()(x, generator=generator).device == x.device
