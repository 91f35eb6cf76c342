"""BatchAugmentation: training batches in every format, what moves along, random numbers, checkpoints, ensembles."""

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

import lightning_tricks as lt
from tests.callbacks.modifying.images import MASK, X, close, flip
from tests.callbacks.monitoring.test_monitor_checkpoints import Resumable
from tests.versions import LIGHTNING


class Seen(L.LightningModule):
    """Keeps what its steps are given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 2)
        self.trained, self.validated = [], []

    def forward(self, x):
        return self.layer(x.flatten(1))

    def training_step(self, batch, batch_idx):
        self.trained.append(batch)
        return self.layer.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(size=12, batch_size=4, **options):
    x = torch.randn(size, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, torch.arange(size)), batch_size, **options)


def trainer(*callbacks, **options):
    return L.Trainer(
        callbacks=[*callbacks], logger=False, enable_progress_bar=False, enable_model_summary=False,
        **{"accelerator": "cpu", "max_epochs": 1, "enable_checkpointing": False, **options},
    )  # fmt: skip


def test_the_training_sees_it_and_nothing_else_does():
    module, data = Seen(), loader()
    fitted = trainer(lt.BatchAugmentation(flip()), max_epochs=2, val_check_interval=1)
    fitted.fit(module, data, loader())
    raw = list(data)
    assert len(module.trained) == 6
    for (x, y), (before, label) in zip(module.trained, raw + raw, strict=True):
        close(x, before.flip(-1))
        assert torch.equal(y, label)
    assert len(module.validated) >= 6
    for index, (x, _) in enumerate(module.validated):
        assert any(torch.equal(x, before) for before, _ in raw), index
    assert "batch_to_device" not in vars(fitted.strategy)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_nothing_is_left_after_an_error(error):
    class Failing(Seen):
        def training_step(self, batch, batch_idx):
            raise error

    fitted = trainer(lt.BatchAugmentation(flip()))
    with pytest.raises((error, SystemExit)):
        fitted.fit(Failing(), loader())
    assert "batch_to_device" not in vars(fitted.strategy)


def test_a_list_is_applied_in_turn():
    module = Seen()
    trainer(lt.BatchAugmentation([flip(), lambda x: x + 1])).fit(module, loader())
    for (x, _), (before, _) in zip(module.trained, loader(), strict=True):
        close(x, before.flip(-1) + 1)


def test_other_callbacks_get_the_augmented_batch_and_precise_batch_norm_the_plain_one():
    got = []

    class Other(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            got.append(batch[0])

    read = []
    precise = lt.PreciseBatchNorm(forward=lambda module, batch: read.append(batch[0]) or module.norm(batch[0]))
    module = Seen()
    module.norm = nn.BatchNorm2d(1)
    trainer(lt.BatchAugmentation(flip()), Other(), precise).fit(module, loader())
    raw = torch.cat([x for x, _ in loader()])
    close(torch.cat(got), raw.flip(-1))
    assert torch.equal(torch.cat(read), raw)


# --- formats


# --- transforms of others


# --- random numbers


def states():
    import random

    import numpy as np

    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


@pytest.mark.parametrize("transform", [lt.nn.AdditiveNoise(1.0), v2.GaussianNoise(), lambda x: x + torch.rand_like(x)])
def test_draws_are_its_own(transform):
    augmentation, before = lt.BatchAugmentation(transform), states()
    one, two = (augmentation.augment((X, MASK), (5, 0, 3))[0] for _ in range(2))
    assert torch.equal(one, two)
    assert states() == before
    for other in ((5, 0, 4), (5, 1, 3), (6, 0, 3)):  # another batch, process, seed
        assert not torch.equal(augmentation.augment((X, MASK), other)[0], one)


def fitted(seed=0, callback_seed=None, **options):
    L.seed_everything(seed, verbose=False)
    module = Seen()
    fitted = trainer(lt.BatchAugmentation(lt.nn.AdditiveNoise(1.0), seed=callback_seed), **options)
    fitted.fit(module, loader(), ckpt_path=options.pop("ckpt_path", None))
    return torch.stack([x for x, _ in module.trained])


def test_trainings_of_one_seed_see_the_same():
    assert torch.equal(fitted(1), fitted(1))
    assert not torch.equal(fitted(1), fitted(2))
    assert torch.equal(fitted(1, 7), fitted(2, 7))


def test_a_checkpoint_holds_where_the_draws_were(tmp_path):
    L.seed_everything(3, verbose=False)
    module, callback = Seen(), lt.BatchAugmentation(lt.nn.AdditiveNoise(1.0))
    first = trainer(callback, max_epochs=1)
    first.fit(module, loader())
    first.save_checkpoint(tmp_path / "half.ckpt")
    L.seed_everything(4, verbose=False)
    resumed = Seen()
    trainer(lt.BatchAugmentation(lt.nn.AdditiveNoise(1.0)), max_epochs=2).fit(
        resumed, loader(), ckpt_path=tmp_path / "half.ckpt"
    )
    whole = fitted(3, max_epochs=2)
    close(torch.stack([x for x, _ in module.trained]), whole[:3])
    close(torch.stack([x for x, _ in resumed.trained]), whole[3:])
    assert not torch.equal(whole[:3], whole[3:])


@pytest.mark.filterwarnings("ignore")  # Lightning's, of folders and loaders
@pytest.mark.skipif(LIGHTNING < (2, 5), reason="Lightning 2.4 does not begin again amid an epoch where it stopped")
def test_an_epoch_that_is_taken_up_amid_goes_on_with_the_draws(tmp_path):
    L.seed_everything(3, verbose=False)
    batches = Resumable(list(loader()))
    saving = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    whole = Seen()
    trainer(lt.BatchAugmentation(lt.nn.AdditiveNoise(1.0)), saving, enable_checkpointing=True).fit(whole, batches)
    resumed = Seen()
    again = trainer(lt.BatchAugmentation(lt.nn.AdditiveNoise(1.0)))
    again.fit(resumed, Resumable(list(loader())), ckpt_path=tmp_path / "step=2.ckpt")
    close(torch.stack([x for x, _ in resumed.trained]), torch.stack([x for x, _ in whole.trained[2:]]))


# --- ensembles, and who fetches batches alone


class Member(Seen):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.layer(x.flatten(1)), y % 2)


@pytest.mark.filterwarnings("ignore:Member is trained by the loop")
@pytest.mark.parametrize("whole", [False, True], ids=["at once", "a function for each member"])
def test_members_of_an_ensemble_have_draws_of_their_own(whole):
    got = []

    class Watching(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            got.append(batch)

    def noise(x):
        assert x.shape[1:] == (1, 8, 8)
        return x + torch.rand_like(x)

    data = TensorDataset(torch.zeros(8, 1, 8, 8), torch.arange(8))
    ensemble = lt.BaggingEnsemble(Member, num_members=3, task="classification")
    augmentation = lt.BatchAugmentation(noise if whole else lt.nn.AdditiveNoise(1.0))
    trainer(augmentation, Watching()).fit(ensemble, lt.BootstrapDataModule(data, num_members=3, batch_size=8))
    x, y = got[0]
    assert x.shape == (3, 8, 1, 8, 8)
    assert y.shape == (3, 8)
    rows = x.flatten(0, 1).flatten(1)
    assert len({tuple(row.tolist()) for row in rows}) == 24


@pytest.mark.filterwarnings("ignore:.*dataloader_iter")
def test_a_step_that_fetches_its_batches_itself_is_told():
    class Own(Seen):
        def training_step(self, dataloader_iter):
            batch, _, _ = next(dataloader_iter)
            return self.layer(batch[0].flatten(1)).sum()

    with pytest.raises(RuntimeError, match="dataloader_iter fetches its batches"):
        trainer(lt.BatchAugmentation(flip())).fit(Own(), loader())


def test_the_transform_of_a_model_with_integers_is_told_the_cure():
    data = DataLoader(TensorDataset(torch.zeros(8, 1, 8, 8, dtype=torch.uint8), torch.arange(8)), 4)
    with pytest.raises(TypeError, match=r"x.float\(\) / 255"):
        trainer(lt.BatchAugmentation(flip(), entries={0: "image"})).fit(Seen(), data)
