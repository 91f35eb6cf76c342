import gc
import weakref

import torch

from lightning_tricks.probes.watch.annotations import Notes


def test_a_note_stays_with_its_tensor_and_no_longer():
    notes, x = Notes(), torch.ones(3)
    notes.write(x, "x")
    assert notes.read(x) == "x"
    assert notes.read(x.view(3)) is None
    assert notes.read(None) is None
    alive = weakref.ref(x)
    del x
    gc.collect()
    assert alive() is None
    assert all(notes.read(torch.ones(3)) is None for _ in range(50))


def test_a_tensor_changed_in_place_is_another_one():
    notes, x = Notes(), torch.ones(3)
    notes.write(x, 1)
    x.add_(1)
    assert notes.read(x) is None
    notes.write(x, 2)
    x[:2].zero_()  # through a view
    assert notes.read(x) is None


def test_tensors_of_inference_mode_have_no_version():
    notes = Notes()
    with torch.inference_mode():
        x = torch.ones(3)
        notes.write(x, 1)
        assert notes.read(x) == 1
    notes.clear()
    assert notes.read(x) is None
