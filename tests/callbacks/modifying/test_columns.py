"""The entries of a batch: found, by what they are to a movement, and put back."""

import pytest
import torch
from torchvision import tv_tensors

import lightning_tricks as lt
from lightning_tricks.callbacks.modifying.columns import columns_of, put
from tests.callbacks.modifying.images import BOXES, MASK, POINTS, X, close, flip


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
