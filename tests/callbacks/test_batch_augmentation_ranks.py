"""BatchAugmentation in two processes: draws of its own for each, the same again from a seed and from a checkpoint."""

import pytest
import torch

from tests.two_processes import run_two

SCRIPT = """
import os, warnings
import torch
import lightning.pytorch as L
import lightning_tricks as lt
from tests.callbacks.test_batch_augmentation import Seen, loader, trainer

warnings.simplefilter("ignore")
rank = int(os.environ["LOCAL_RANK"])

class Summed(Seen):
    def training_step(self, batch, batch_idx):
        self.trained.append(batch)
        return self(batch[0]).square().mean()

def fit(epochs, seed=1, **options):
    L.seed_everything(seed, verbose=False)
    torch.rand(5 * rank)  # what a process draws by itself is not what the callback draws
    module = Summed()
    augmentation = lt.BatchAugmentation(lt.nn.RandomAffine(flip=0.5))
    joint = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}
    training = trainer(augmentation, max_epochs=epochs, num_sanity_val_steps=0, **joint)
    training.fit(module, loader(), **options)
    return training, torch.stack([x for x, _ in module.trained])

_, whole = fit(2)
_, again = fit(2)
_, other = fit(2, seed=2)
training, first = fit(1)
training.save_checkpoint("half.ckpt")
_, rest = fit(2, seed=3, ckpt_path="half.ckpt")
torch.save({"whole": whole, "again": again, "other": other, "first": first, "rest": rest}, f"rank{rank}.pt")
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_draws_of_two_processes(tmp_path):
    run_two(SCRIPT, tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    for seen in ranks:
        assert seen["whole"].shape[0] == 6  # two epochs of three batches, the same images in both processes
        torch.testing.assert_close(seen["whole"], seen["again"], rtol=0, atol=0)
        torch.testing.assert_close(seen["whole"], torch.cat([seen["first"], seen["rest"]]), rtol=0, atol=0)
        assert not torch.equal(seen["whole"], seen["other"])
    batches = torch.cat([seen["whole"] for seen in ranks]).flatten(1)
    assert len(batches.unique(dim=0)) == len(batches)
