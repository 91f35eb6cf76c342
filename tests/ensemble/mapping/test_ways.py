"""A step that calls other functions than those before is compared with the loop, too, where it is first taken."""

import pytest
import torch.nn.functional as F

from lightning_tricks.ensemble.mapping import backend, ways
from tests.ensemble.mapping.test_proof import Half, sgd
from tests.ensemble.trainings import Plain, Smooth, difference, fit, network, separate


class Later(Plain):
    """From the third of six steps on its loss has one more term; batch norm has statistics by then."""

    def __init__(self):
        super().__init__(network(), sgd)

    def term(self, logits):
        return logits.square().mean()

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        loss = F.cross_entropy(logits, y)
        return loss + self.term(logits) if self.trainer.global_step >= 2 else loss


@pytest.fixture
def proofs(monkeypatch):
    """The numbers of the batches on which mapped and looped steps are compared."""
    asked = []
    found = backend.BackendBenchmark.why_not_mapped
    monkeypatch.setattr(
        backend.BackendBenchmark, "why_not_mapped", lambda self: asked.append(self.batch_idx) or found(self)
    )
    return asked


def test_a_new_way_is_compared_once_and_mapped(proofs):
    ensemble, _ = fit(Later, "vmap")
    assert proofs == [0, 2]
    assert ensemble.used_backend == "vmap", ensemble.reason
    assert difference(ensemble.networks, separate(Later)[0]) < 1e-10


class Refused(Later):
    def term(self, logits):
        return logits.square().mean() if float(logits.detach().max()) > -9 else 0.0


def test_what_vmap_refuses_later_is_looped_from_there():
    with pytest.warns(UserWarning, match=r"\(from step 2 on\)"):
        ensemble, _ = fit(Refused, "vmap")
    assert ensemble.used_backend == "loop"
    assert difference(ensemble.networks, separate(Refused)[0]) < 1e-10


class Wrong(Half):
    def forward(self, x):
        return super().forward(x) if self.trainer.global_step >= 2 else self.net(x)


def test_what_is_wrong_later_is_looped_from_there():
    with pytest.warns(UserWarning, match=r"in the gradient of net\.weight, member 1 \(from step 2 on\)"):
        ensemble, _ = fit(Wrong, "vmap")
    assert difference(ensemble.networks, separate(Wrong)[0]) < 1e-10


@pytest.mark.parametrize("steps", [2, 3])
def test_accumulated_gradients_go_on_in_the_loop(steps):
    with pytest.warns(UserWarning, match="from step"):
        ensemble, _ = fit(Refused, "vmap", accumulate_grad_batches=steps, max_epochs=4)
    assert difference(ensemble.networks, separate(Refused, accumulate_grad_batches=steps, max_epochs=4)[0]) < 1e-10


def test_an_error_of_the_member_is_the_members_also_later():
    class Broken(Smooth):
        def training_step(self, batch, batch_idx):
            if self.trainer.global_step:
                raise KeyError("no such thing")
            return super().training_step(batch, batch_idx)

    with pytest.warns(UserWarning, match="no such thing"), pytest.raises(KeyError, match="no such thing"):
        fit(Broken, "vmap")


def test_an_undone_step_draws_again_what_it_drew():
    class Dropping(Later):
        def __init__(self):
            super().__init__()
            self.net = network(0.5)

    class Always(Dropping):
        def training_step(self, batch, batch_idx):
            x, y = batch
            logits = self(x)
            return F.cross_entropy(logits, y) + float(self.trainer.global_step >= 2) * self.term(logits)

    assert difference(fit(Dropping, "vmap")[0].networks, fit(Always, "vmap")[0].networks) < 1e-10


def test_steps_of_which_each_is_another_are_looped(monkeypatch):
    class Restless(Smooth):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            for _ in range(self.trainer.global_step):
                loss = loss + 1.0
            return loss

    monkeypatch.setattr(ways, "MOST", 3)
    with pytest.warns(UserWarning, match=r"differ in what they call \(from step 3 on\)"):
        ensemble, _ = fit(Restless, "vmap")
    assert difference(ensemble.networks, separate(Restless)[0]) < 1e-10
