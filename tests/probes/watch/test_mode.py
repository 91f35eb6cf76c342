"""Every call that twenty torchvision networks make, against what reaches the kernels; inception_v3 by name."""

import contextlib
import math
from collections import Counter

import pytest
import torch
import torchvision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_tricks.probes import probe

models = torchvision.models
KERNELS = {
    "relu": "relu", "relu_": "relu", "gelu": "gelu", "silu": "silu", "silu_": "silu", "sigmoid": "sigmoid",
    "sigmoid_": "sigmoid", "hardswish": "hardswish", "hardswish_": "hardswish", "hardsigmoid": "hardsigmoid",
    "hardsigmoid_": "hardsigmoid", "tanh": "tanh", "hardtanh": "relu6", "hardtanh_": "relu6", "selu": "selu",
    "elu": "elu", "convolution": "convolution", "addmm": "linear", "mm": "linear", "linear": "linear",
    "_addmm_activation": "linear",
}  # fmt: skip


def vgg11_bn(num_classes):
    """Its 100 million weights of the first linear layer are left out."""
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(True), nn.Linear(64, num_classes))
    return nn.Sequential(models.vgg.make_layers(models.vgg.cfgs["A"], batch_norm=True), *head)


NETWORKS = {
    "alexnet": (models.alexnet, 64),
    "vgg11_bn": (vgg11_bn, 32),
    "resnet18": (models.resnet18, 32),
    "resnext50_32x4d": (models.resnext50_32x4d, 32),
    "densenet121": (models.densenet121, 32),
    "googlenet": (lambda **k: models.googlenet(init_weights=False, **k), 64),
    "inception_v3": (lambda **k: models.inception_v3(init_weights=False, transform_input=True, **k), 299),
    "squeezenet1_0": (models.squeezenet1_0, 48),
    "mobilenet_v2": (models.mobilenet_v2, 32),
    "mobilenet_v3_small": (models.mobilenet_v3_small, 32),
    "shufflenet_v2_x0_5": (models.shufflenet_v2_x0_5, 32),
    "mnasnet0_5": (models.mnasnet0_5, 32),
    "efficientnet_b0": (models.efficientnet_b0, 32),
    "efficientnet_v2_s": (models.efficientnet_v2_s, 32),
    "regnet_y_400mf": (models.regnet_y_400mf, 32),
    "convnext_tiny": (models.convnext_tiny, 32),
    "vit": (lambda **k: models.VisionTransformer(32, 8, 3, 4, 64, 128, **k), 32),
    "swin_t": (models.swin_t, 32),
    "r3d_18": (models.video.r3d_18, 16),
    "lraspp_mobilenet_v3_large": (
        lambda **k: models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None, **k),
        64,
    ),
}


class Kernels(TorchDispatchMode):
    """Counts activation and product kernels of the forward pass."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()
        self.forward = True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = KERNELS.get(func.overloadpacket.__name__)
        if self.forward and name:
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))


def run(make, size, probed, kernels=None):
    torch.manual_seed(0)
    model = make(num_classes=5).train()
    shape = (2, 3, 4, size, size) if isinstance(model, models.video.resnet.VideoResNet) else (2, 3, size, size)
    x = torch.randn(shape)
    with probe(model) if probed else contextlib.nullcontext() as p:
        with kernels or contextlib.nullcontext():
            output = model(x)
        outputs = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else (output,)
        loss = sum(o.square().mean() for o in outputs)
        loss.backward()
    return loss.detach(), {n: q.grad for n, q in model.named_parameters()}, torch.get_rng_state(), p, model


@pytest.mark.parametrize("name", NETWORKS)
def test_every_call_of(name):
    make, size = NETWORKS[name]
    kernels = Kernels()
    loss, gradients, state, _, model = run(make, size, False, kernels)
    loss_probed, gradients_probed, state_probed, p, _ = run(make, size, True)
    assert torch.equal(loss, loss_probed)
    assert torch.equal(state, state_probed)
    for key, gradient in gradients.items():
        other = gradients_probed[key]
        assert (gradient is None and other is None) or torch.equal(gradient, other), key
    snapshot = p.snapshot()
    assert not [entry for entry in snapshot.not_seen.items() if "did not run" not in entry[1]]
    seen = Counter(record.function for record in snapshot.activations)
    for record in snapshot.weighted:
        seen["convolution" if record.operation.startswith("conv") else "linear"] += 1
    assert seen == kernels.calls
    assert not [r.name for r in (*snapshot.activations, *snapshot.weighted) if math.isnan(r.error_signal)]
    names = [record.name for record in snapshot.activations]
    assert len(set(names)) == len(names)
    if name == "inception_v3":
        assert seen["relu"] == 96
        assert not any(isinstance(module, nn.ReLU) for module in model.modules())
