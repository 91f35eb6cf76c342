"""What scikit-learn's own tests of bagging ask of it (sklearn/ensemble/tests/test_bagging.py), asked of ensembles.

Its draws of features, sample weights and sparse matrices have no counterpart here; sizes of draws, out-of-bag scores
against loops, errors and several processes have tests of their own.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from lightning_tricks.ensemble import BaggingEnsemble, BootstrapDataModule, bootstrap
from tests.ensemble.trainings import DOUBLE, Plain, Smooth, difference, trainer

SIZE = 120


pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore:.*have no out-of-bag")]


def patterns(targets=None, size=SIZE):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, 6, generator=generator, dtype=DOUBLE)
    return TensorDataset(x, (x[:, 0] + x[:, 1] > 0).long() if targets is None else targets(x))


class Linear(Plain):
    """Begins always at the same weights, so that the draws alone make the difference."""

    def __init__(self, outputs=2):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(nn.Linear(6, outputs).double())


class Values(Linear):
    def training_step(self, batch, batch_idx):
        return F.mse_loss(self(batch[0]), batch[1])


def fitted(make=Linear, num_members=4, dataset=None, seed=0, epochs=10, task="classification", **options):
    ensemble = BaggingEnsemble(make, num_members, task=task, seed=seed)
    data = BootstrapDataModule(dataset or patterns(), num_members, SIZE, seed=seed, **options)
    trainer(max_epochs=epochs).fit(ensemble, data)
    return ensemble, data


def alone(dataset, epochs=10):
    """The base estimator: one network, trained on these patterns in whole batches."""
    member, (x, y) = Linear(), zip(*dataset, strict=True)
    optimizer = member.configure_optimizers()
    for _ in range(epochs):
        optimizer.zero_grad()
        F.cross_entropy(member(torch.stack(x)), torch.stack(y)).backward()
        optimizer.step()
    return member


def test_members_differ_by_their_draws_alone():
    whole, _ = fitted(bootstrap=False)
    assert difference(whole.networks, [alone(patterns())] * 4) < 1e-12
    drawn, data = fitted()
    assert difference(drawn.networks, [alone(data.sets.subset(patterns(), k)) for k in range(4)]) < 1e-12
    rows = torch.stack([network.net.weight.flatten() for network in drawn.networks])
    assert len(rows.unique(dim=0)) == 4


def test_one_member_without_draws_is_the_base_estimator():
    ensemble, _ = fitted(num_members=1, bootstrap=False)
    x, _ = patterns().tensors
    torch.testing.assert_close(ensemble.predict(x).mean, alone(patterns())(x).softmax(1))


def test_fewer_members_are_the_first_ones_of_more():
    """What warm starts rest on: members that are added change none of the others."""
    few, more = (fitted(Smooth, number)[0] for number in (2, 4))
    assert difference(few.networks, more.networks[:2]) < 1e-12


def test_a_fit_that_goes_on_is_one_long_fit():
    ensemble, data = fitted(epochs=3)
    trainer(max_epochs=4).fit(ensemble, data)
    assert difference(ensemble.networks, fitted(epochs=3)[0].networks) > 1e-3
    x, _ = patterns().tensors
    assert ensemble.predict(x).members.shape == (4, SIZE, 2)
    assert ensemble.out_of_bag.prediction.shape == (SIZE, 2)  # of the weights as they are now
    covered = data.sets.out_of_bag.any(0)
    n = int(covered.nonzero()[0])
    unseen = data.sets.out_of_bag[:, n]
    mean = ensemble.predict(x).members[unseen, n].mean(0)
    torch.testing.assert_close(ensemble.out_of_bag.prediction[n], mean)


def test_out_of_bag_scores_are_near_those_of_a_test_and_the_same_again():
    halves = zip(*(tensor.split(500) for tensor in patterns(size=1000).tensors), strict=True)
    train, test = (TensorDataset(*half) for half in halves)
    one, two, other = (fitted(num_members=10, dataset=train, seed=seed)[0] for seed in (0, 0, 1))
    x, y = test.tensors
    tested = float((one.predict(x).mean.argmax(1) == y).double().mean())
    assert one.out_of_bag.score == pytest.approx(tested, abs=0.1)
    torch.testing.assert_close(one.out_of_bag.prediction, two.out_of_bag.prediction, rtol=0, atol=0, equal_nan=True)
    assert one.out_of_bag.loss != other.out_of_bag.loss


def test_a_share_of_the_patterns_and_their_number_are_the_same_draws():
    assert torch.equal(bootstrap(SIZE, 3, max_samples=0.25).indices, bootstrap(SIZE, 3, max_samples=30).indices)


@pytest.mark.parametrize("outputs", [1, 3])
def test_several_targets_and_their_score(outputs):
    dataset = patterns(lambda x: x[:, :outputs] * 3)
    ensemble, data = fitted(lambda: Values(outputs), dataset=dataset, epochs=5, task="regression")
    found, (x, y) = ensemble.out_of_bag, dataset.tensors
    unseen, members = data.sets.out_of_bag, ensemble.predict(x).members
    rows = [n for n in range(SIZE) if unseen[:, n].any()]
    mean = torch.stack([members[unseen[:, n], n].mean(0) for n in rows])
    torch.testing.assert_close(found.prediction[rows].view_as(mean), mean)
    assert found.loss == pytest.approx(float((mean - y[rows]).square().mean()))


def test_members_that_fill_in_what_is_missing():
    class Filling(Linear):
        def forward(self, x):
            return self.net(x.nan_to_num())

    x, y = (tensor.clone() for tensor in patterns().tensors)
    x[::3, 2] = float("nan")
    ensemble, _ = fitted(Filling, dataset=TensorDataset(x, y))
    assert bool(ensemble.predict(x).mean.isfinite().all())
    assert bool(ensemble.out_of_bag.prediction[0].isfinite().all())
