"""How transforms of every kind are called: ours, torchvision's, any function."""

import pytest
import torch
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2

import lightning_tricks as lt
from tests.callbacks.modifying.images import BOXES, MASK, POINTS, X, close, flip


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
