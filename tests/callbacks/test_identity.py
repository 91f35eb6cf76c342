"""A training with all monitors at every step is the same bit for bit as one without."""

import copy

import pytest
import torch

from tests.callbacks.trainings import (
    AccumulatesByHand,
    Classifier,
    ConfiguredLate,
    Functional,
    Gan,
    Recurrent,
    Scheduled,
    Skipping,
    batches,
    cnn,
    fit,
    lbfgs,
    mlp,
    monitors,
    same,
    transformer,
)
from tests.versions import LIGHTNING


class CompiledInside(Classifier):
    def __init__(self):
        super().__init__(torch.compile(mlp(), backend="eager"))


class Validated(Classifier):
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))


class NeverCleared(Classifier):
    """Steps by hand with whatever gradient is there."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.manual_backward(self.loss(batch))
        self.optimizers().step()


class StepsInBackward(Classifier):
    """Every parameter has an optimiser, which makes its step as soon as the gradient is there."""

    def __init__(self):
        super().__init__(cnn())
        self.automatic_optimization = False

    def configure_optimizers(self):
        optimizers = {parameter: torch.optim.Adam([parameter]) for parameter in self.parameters()}

        def step_at_once(parameter):
            optimizers[parameter].step()
            parameter.grad = None

        for parameter in self.parameters():
            parameter.register_post_accumulate_grad_hook(step_at_once)
        return list(optimizers.values())

    def training_step(self, batch, batch_idx):
        self.manual_backward(self.loss(batch))


class Frozen(Classifier):
    """Frozen fresh layers, and one in a Python list."""

    def __init__(self):
        super().__init__()
        self.net[0].requires_grad_(False)
        self.hidden = [torch.nn.Linear(3, 3)]

    def loss(self, batch):
        return torch.nn.functional.cross_entropy(self.hidden[0](self.net(batch[0])), batch[1])


CASES = {
    "mlp with dropout": (Classifier, {}),
    "cnn with batch norm and in-place relu": (lambda: Classifier(cnn()), {}),
    "transformer": (lambda: Classifier(transformer()), {}),
    "functional calls": (Functional, {}),
    "lstm": (lambda: Classifier(Recurrent()), {}),
    "accumulation": (lambda: Classifier(cnn()), {"accumulate_grad_batches": 3}),
    "clipping": (Classifier, {"gradient_clip_val": 0.1}),
    "bf16-mixed": (lambda: Classifier(cnn()), {"precision": "bf16-mixed"}),
    "bf16-true": (Classifier, {"precision": "bf16-true"}),
    "double": (Classifier, {"precision": "64-true"}),
    "two optimisers by hand": (Gan, {}),
    "accumulation by hand": (AccumulatesByHand, {}),
    "gradients never cleared": (NeverCleared, {}),
    "steps inside of the backward pass": (StepsInBackward, {}),
    "frozen layers and layers in a list": (Frozen, {}),
    "lbfgs": (lambda: Classifier(optimizer=lbfgs), {}),
    "compiled network": (CompiledInside, {}),
    "configure_model": (ConfiguredLate, {}),
    "steps without a loss": (Skipping, {}),
    "scheduler": (Scheduled, {}),
    "validation amid accumulation": (Validated, {"accumulate_grad_batches": 4, "val_check_interval": 2}),
}


def train(make, options, callbacks):
    torch.manual_seed(0)
    module = make()
    validation = batches(2) if isinstance(module, Validated) else None
    trainer = fit(module, callbacks, batches(7), validation=validation, **options)
    optimizers = copy.deepcopy([optimizer.state_dict() for optimizer in trainer.optimizers])
    return module.losses, module.state_dict(), optimizers, torch.get_rng_state()


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@pytest.mark.parametrize("case", CASES)
def test_same_bit_for_bit(case):
    make, options = CASES[case]
    looking = monitors()
    assert same(train(make, options, []), train(make, options, looking))
    assert looking[0].history
    for snapshot in looking[2].history:
        assert not [reason for reason in snapshot.not_seen.values() if "could not be read" in reason]


@pytest.mark.filterwarnings("ignore:.*will be deprecated", "ignore:.*torch.jit")
def test_compiled_module_keeps_its_graph():
    """The steps between two probed ones run the compiled graph, which is not compiled again."""
    if LIGHTNING < (2, 5):
        pytest.skip("with Lightning 2.4 a module that was compiled in place is not run compiled")
    compiled, ran = [], []

    def backend(graph, inputs):
        compiled.append(graph)

        def run(*args):
            ran.append(1)
            return graph(*args)

        return run

    def train(callbacks):
        compiled.clear()
        ran.clear()
        torch._dynamo.reset()
        torch.manual_seed(0)
        module = Classifier()
        module.net.compile(backend=backend)
        fit(module, callbacks, batches(12))
        return module.losses, module.state_dict(), torch.get_rng_state(), len(compiled)

    *without, graphs = train([])
    assert len(ran) == 12
    looking = monitors(every_n_steps=5)
    *with_monitors, graphs_with = train(looking)
    assert len(ran) == 12 - len(looking[0].history) == 12 - len([0, 1, 2, 4, 5, 10])
    assert same(without, with_monitors)
    assert graphs == graphs_with == 1
    assert [record.name for record in looking[0].history[-1].activations] == ["net.1", "net.4"]


def test_whole_module_compiled():
    torch.manual_seed(0)
    module, looking = Classifier(), monitors()
    fit(torch.compile(module, backend="eager"), looking)
    assert [snapshot.step for snapshot in looking[0].history] == list(range(6))
    assert [record.name for record in looking[0].history[0].activations] == ["net.1", "net.4"]
