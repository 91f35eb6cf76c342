import gc
import weakref

import torch

from lightning_tricks.probes.watch.annotations import TensorAnnotations


def test_an_annotation_stays_with_its_tensor_and_no_longer():
    annotations, x = TensorAnnotations(), torch.ones(3)
    annotations.write(x, "x")
    assert annotations.read(x) == "x"
    assert annotations.read(x.view(3)) is None
    assert annotations.read(None) is None
    alive = weakref.ref(x)
    del x
    gc.collect()
    assert alive() is None
    assert all(annotations.read(torch.ones(3)) is None for _ in range(50))


def test_a_tensor_changed_in_place_is_another_one():
    annotations, x = TensorAnnotations(), torch.ones(3)
    annotations.write(x, 1)
    x.add_(1)
    assert annotations.read(x) is None
    annotations.write(x, 2)
    x[:2].zero_()  # through a view
    assert annotations.read(x) is None


def test_tensors_of_inference_mode_have_no_version():
    annotations = TensorAnnotations()
    with torch.inference_mode():
        x = torch.ones(3)
        annotations.write(x, 1)
        assert annotations.read(x) == 1
    annotations.clear()
    assert annotations.read(x) is None
