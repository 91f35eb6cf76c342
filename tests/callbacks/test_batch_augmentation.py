"""BatchAugmentation: training batches in every format, what moves along, random numbers, checkpoints, ensembles."""

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

import lightning_tricks as lt
from lightning_tricks.callbacks.modifying.columns import columns_of, put
from tests.callbacks.monitoring.test_monitor_checkpoints import Resumable
from tests.versions import LIGHTNING

FLIP = {"degrees": 0.0, "translate": 0.0, "scale": (1.0, 1.0), "shear": 0.0, "flip": 1.0}


def flip():
    """Exchanges left and right of every image, exactly enough to be told from all else."""
    return lt.nn.RandomAffine(**FLIP)


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


def close(one, two):
    torch.testing.assert_close(one, two, rtol=0, atol=1e-4)


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


X = torch.randn(3, 2, 6, 6)
MASK = torch.randint(0, 9, (3, 6, 6))
BOXES = torch.tensor([[1.0, 0.0, 3.0, 2.0]]).expand(3, 1, 4)
POINTS = torch.tensor([[[0.0, 1.0], [4.0, 5.0]]]).expand(3, 2, 2)


def test_several_entries_of_a_tuple_and_of_nested_mappings():
    augmentation = lt.BatchAugmentation(flip(), entries={0: "image", 1: "mask"})
    x, mask, rest = augmentation.augment((X, MASK, "name"))
    close(x, X.flip(-1))
    assert torch.equal(mask, MASK.flip(-1))
    assert rest == "name"
    batch = {"in": {"a": X, "b": X + 1}, "target": [BOXES, POINTS], "y": torch.arange(3)}
    entries = {"in.a": "image", "in.b": "image", "target.0": "boxes", "target.1": "keypoints"}
    found = lt.BatchAugmentation(flip(), entries=entries).augment(batch)
    close(found["in"]["a"], X.flip(-1))
    close(found["in"]["b"], X.flip(-1) + 1)
    close(found["target"][0], torch.tensor([[3.0, 0.0, 5.0, 2.0]]).expand(3, 1, 4))
    close(found["target"][1], torch.tensor([[[5.0, 1.0], [1.0, 5.0]]]).expand(3, 2, 2))
    assert found["y"] is batch["y"]
    assert torch.equal(batch["in"]["a"], X)


def test_tensors_of_torchvision_say_what_they_are():
    boxes = tv_tensors.BoundingBoxes(torch.tensor([[1.0, 0.0, 2.0, 2.0]]), format="XYWH", canvas_size=(6, 6))
    sample = (tv_tensors.Image(X[0]), {"mask": tv_tensors.Mask(MASK[0]), "boxes": boxes, "area": torch.ones(1)})
    images, targets = zip(sample, sample, strict=True)
    found_images, found = lt.BatchAugmentation(flip()).augment((list(images), targets))
    for image, target in zip(found_images, found, strict=True):
        assert type(image) is tv_tensors.Image
        close(image.as_subclass(torch.Tensor), X[0].flip(-1))
        assert type(target["mask"]) is tv_tensors.Mask
        assert torch.equal(target["mask"].as_subclass(torch.Tensor), MASK[0].flip(-1))
        assert target["boxes"].format.value == "XYWH"
        close(target["boxes"].as_subclass(torch.Tensor), torch.tensor([[3.0, 0.0, 2.0, 2.0]]))
        assert torch.equal(target["area"], torch.ones(1))
    assert isinstance(found, tuple)


def test_lists_of_images_of_different_sizes_with_no_boxes_in_some():
    images = [torch.randn(1, 6, 6), torch.randn(1, 4, 8)]
    targets = [{"boxes": torch.zeros(0, 4)}, {"boxes": torch.tensor([[0.0, 0.0, 2.0, 1.0]])}]
    augmentation = lt.BatchAugmentation(flip(), entries={"0": "image", "1.boxes": "boxes"})
    found, labels = augmentation.augment((images, targets))
    for one, before in zip(found, images, strict=True):
        close(one, before.flip(-1))
    assert labels[0]["boxes"].shape == (0, 4)
    close(labels[1]["boxes"], torch.tensor([[6.0, 0.0, 8.0, 1.0]]))


def test_a_batch_that_is_one_tensor_or_a_named_tuple():
    from collections import namedtuple

    close(lt.BatchAugmentation(flip()).augment(X), X.flip(-1))
    pair = namedtuple("pair", "y x")(torch.arange(3), X)
    found = lt.BatchAugmentation(flip()).augment(pair)
    close(found.x, X.flip(-1))
    assert found.y is pair.y


def test_errors_name_what_there_is():
    with pytest.raises(ValueError, match="no tensor 'mask'; there are 'x', 'y'"):
        lt.BatchAugmentation(flip(), entries={"x": "image", "mask": "mask"}).augment({"x": X, "y": MASK})
    with pytest.raises(ValueError, match="no image to augment"):
        lt.BatchAugmentation(flip()).augment({"y": MASK})
    with pytest.raises(ValueError, match=r"samples cannot be moved together"):
        lt.BatchAugmentation(flip(), entries={0: "image", 1: "mask"}).augment((X, MASK[:2]))
    with pytest.raises(ValueError, match="has to be one of 'image'"):
        lt.BatchAugmentation(flip(), entries={0: "picture"})
    with pytest.raises(TypeError, match="has to be a module or a function"):
        lt.BatchAugmentation(lt.nn.RandomAffine)


def test_put_keeps_what_it_does_not_replace():
    inner = [1, X]
    tree = {"a": inner, "b": (X, None)}
    found = put(tree, {("b", 0): MASK})
    assert found["a"] is inner
    assert found["b"][0] is MASK
    assert [column.kind for column in columns_of(tree, {"b.0": "image", "a.1": "image"})] == ["image", "image"]


# --- transforms of others


def test_torchvisions_transforms_are_called_for_every_sample():
    augmentation = lt.BatchAugmentation(v2.RandomHorizontalFlip(0.5), entries={0: "image", 1: "mask"})
    x, mask = augmentation.augment((X.expand(3, 2, 6, 6).repeat(20, 1, 1, 1), MASK.repeat(20, 1, 1)))
    before, labels = X.repeat(20, 1, 1, 1), MASK.repeat(20, 1, 1)
    flipped = [bool(torch.equal(one, old.flip(-1))) for one, old in zip(x, before, strict=True)]
    assert 15 < sum(flipped) < 45
    for index, was in enumerate(flipped):
        assert torch.equal(x[index], before[index].flip(-1) if was else before[index])
        assert torch.equal(mask[index], labels[index].flip(-1) if was else labels[index])
    assert type(x) is type(mask) is torch.Tensor


def test_torchvision_moves_boxes_and_key_points_too():
    if not hasattr(tv_tensors, "KeyPoints"):
        pytest.skip("key points need torchvision 0.23")
    entries = {0: "image", 1: "boxes", 2: "keypoints"}
    x, boxes, points = lt.BatchAugmentation(v2.RandomHorizontalFlip(1.0), entries=entries).augment((X, BOXES, POINTS))
    ours = lt.BatchAugmentation(flip(), entries=entries).augment((X, BOXES, POINTS))
    for one, two in zip((x, boxes, points), ours, strict=True):
        close(one, two)


def test_compose_and_lists_of_images():
    composed = v2.Compose([v2.RandomHorizontalFlip(1.0), v2.RandomVerticalFlip(1.0)])
    close(lt.BatchAugmentation(composed).augment((X, MASK))[0], X.flip(-1, -2))
    images = [tv_tensors.Image(torch.randn(3, 6, 6)), tv_tensors.Image(torch.randn(3, 4, 4))]
    found, _ = lt.BatchAugmentation(composed).augment((images, [{}, {}]))
    assert [type(image) for image in found] == [tv_tensors.Image] * 2
    close(found[1].as_subclass(torch.Tensor), images[1].flip(-1, -2).as_subclass(torch.Tensor))


def test_samples_of_lists_go_to_torchvision_whole():
    """Boxes that leave the image are dropped with their labels; a plain one is named, and stays plain."""
    crop = v2.Compose([v2.CenterCrop(4), v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(min_size=1)])
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 5.0, 4.0]])
    known = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(6, 6))
    for given, entries in ((known, None), (boxes, {"0": "image", "1.boxes": "boxes"})):
        targets = [{"boxes": given, "labels": torch.tensor([3, 7]), "name": f"picture {i}"} for i in range(2)]
        images, found = lt.BatchAugmentation(crop, entries=entries).augment(([X[0], X[1]], targets))
        assert [image.shape for image in images] == [(2, 4, 4)] * 2
        assert type(images[0]) is torch.Tensor
        for i, target in enumerate(found):
            assert type(target["boxes"]) is type(given)
            assert target["boxes"].tolist() == [[1.0, 1.0, 4.0, 3.0]]
            assert target["labels"].tolist() == [7]
            assert target["name"] == f"picture {i}"
        assert targets[0]["labels"].tolist() == [3, 7]


def test_mixup_gets_the_whole_batch_with_its_labels():
    y = torch.arange(3)
    x, mixed = lt.BatchAugmentation(v2.MixUp(num_classes=3)).augment((X, y))
    assert mixed.shape == (3, 3)
    close(mixed.sum(1), torch.ones(3))
    share = mixed[0, 0]
    close(x[0], share * X[0] + (1 - share) * X[2])


def test_any_function_is_called_with_the_batchs_images_or_with_each():
    shapes = []
    lt.BatchAugmentation(lambda x: shapes.append(x.shape) or x).augment((X, MASK))
    lt.BatchAugmentation(lambda x: shapes.append(x.shape) or x, per_sample=True).augment((X, MASK))
    assert shapes == [X.shape, *[X.shape[1:]] * 3]
    both = lt.BatchAugmentation(lambda x, m: (x.flip(-1), m.flip(-1)), entries={0: "image", 1: "mask"})
    assert torch.equal(both.augment((X, MASK))[1], MASK.flip(-1))


def test_a_sequential_of_our_modules_moves_masks_along_too():
    both = nn.Sequential(flip(), lt.nn.AdditiveNoise(0.0))
    x, mask = lt.BatchAugmentation(both, entries={0: "image", 1: "mask"}).augment((X, MASK))
    close(x, X.flip(-1))
    assert torch.equal(mask, MASK.flip(-1))


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
