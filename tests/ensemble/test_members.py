"""Members from a seed, of one structure; errors say what is wrong."""

import lightning.pytorch as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_tricks.ensemble import BaggingEnsemble, BootstrapDataModule
from lightning_tricks.ensemble.members import make_members
from tests.ensemble.trainings import Plain, data, fit, trainer


def test_from_a_seed_and_without_moving_the_global_one():
    before = torch.get_rng_state()
    one, two = make_members(Plain, 3, seed=1), make_members(Plain, 5, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    weights = [member.net[0].weight for member in two]
    assert torch.equal(one[2].net[0].weight, weights[2])
    assert len({float(weight.detach().sum()) for weight in weights}) == 5


def growing(shapes):
    sizes = iter(shapes)
    return lambda: Plain(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, next(sizes))))


def test_different_structure_names_the_first_parameter():
    with pytest.raises(ValueError, match=r"members 0 and 2 .* net\.1\.weight: \(3, 4\) float32 and \(5, 4\) float32"):
        make_members(growing([3, 3, 5]), 3)


def test_a_layer_more():
    nets = iter([nn.Sequential(nn.Linear(6, 3)), nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 3))])
    with pytest.raises(ValueError, match=r"net\.1\.weight: absent and \(3, 3\) float32"):
        make_members(lambda: Plain(next(nets)), 2)


def test_the_same_object_twice():
    member = Plain()
    with pytest.raises(ValueError, match="same object twice"):
        make_members(lambda: member, 2)


def test_hooks_that_see_one_batch_are_refused():
    class Hooked(Plain):
        def on_before_optimizer_step(self, optimizer):
            pass

    with pytest.raises(TypeError, match="Hooked overrides on_before_optimizer_step"):
        make_members(Hooked, 1)


def test_lazy_and_wrong_types():
    with pytest.raises(ValueError, match=r"parameter net\.weight of Plain has no shape yet"):
        make_members(lambda: Plain(nn.LazyLinear(2)), 2)
    with pytest.raises(TypeError, match="returned a Linear"):
        make_members(lambda: nn.Linear(2, 2), 2)


@pytest.mark.parametrize("count", [0, -1, 2.0, True])
def test_number_of_members(count):
    with pytest.raises(ValueError, match="num_members must be a whole number of at least 1"):
        BaggingEnsemble(Plain, count, task="classification")


@pytest.mark.parametrize("options", [{"task": "ranking"}, {"backend": "jit"}, {"parallel": "both"}])
def test_unknown_words(options):
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match=f"{name} must be one of .* got '{value}'"):
        BaggingEnsemble(Plain, 2, **{"task": "classification", **options})


def test_an_ordinary_loader():
    ensemble = BaggingEnsemble(Plain, 3, task="classification")
    with pytest.raises(ValueError, match=r"has to hold tensors \[3, B, ...\], got \(16, 6\)"):
        trainer().fit(ensemble, DataLoader(data(), batch_size=16))


def test_other_numbers_of_members_and_ways_to_distribute_them():
    ensemble = BaggingEnsemble(Plain, 3, task="classification")
    with pytest.raises(ValueError, match="3 members, but draws for num_members=4"):
        trainer().fit(ensemble, BootstrapDataModule(data(), 4))
    with pytest.raises(ValueError, match="parallel='data' here, 'members' in the BootstrapDataModule"):
        trainer().fit(ensemble, BootstrapDataModule(data(), 3, parallel="members"))


def test_no_optimizer():
    class Still(Plain):
        def configure_optimizers(self):
            return None

    with pytest.raises(ValueError, match="configure_optimizers of Still returned no optimiser"):
        fit(Still)


def test_hooks_run_for_each_member():
    class Counting(Plain):
        def on_train_epoch_start(self):
            vars(self)["epochs"] = vars(self).get("epochs", 0) + 1

        def on_train_epoch_end(self):
            self.log("epochs", float(self.epochs))

    ensemble, run = fit(Counting, "loop", max_epochs=3)
    assert [member.epochs for member in ensemble.networks] == [3, 3, 3]
    assert float(run.callback_metrics["epochs"]) == 3.0


def test_a_failing_member_fails_and_is_left_as_it_was():
    class Failing(Plain):
        def training_step(self, batch, batch_idx):
            self.log("loss", 1.0)
            raise RuntimeError("broken member")

    ensemble = BaggingEnsemble(Failing, 2, task="classification", backend="loop")
    before = [parameter.clone() for parameter in ensemble.parameters()]
    with pytest.raises(RuntimeError, match="broken member"):
        trainer().fit(ensemble, BootstrapDataModule(data(), 2))
    assert all("log" not in vars(member) for member in ensemble.networks)
    assert all(map(torch.equal, before, ensemble.parameters()))
    assert isinstance(ensemble, L.LightningModule)
