"""replace_modules: everywhere, once, with what the old module carried, or not at all."""

import copy
import functools

import pytest
import torch
from torch import nn

from lightning_tricks.surgery import Report, replace_modules
from lightning_tricks.surgery.replace import hand_over, refuse_wrapped


def to(new):
    """A policy: every ReLU becomes what ``new`` makes."""
    return lambda name, module: new() if isinstance(module, nn.ReLU) else None


def test_nested_modules_in_every_container():
    model = nn.ModuleDict({"a": nn.Sequential(nn.ReLU(), nn.ModuleList([nn.ReLU(), nn.Tanh()])), "b": nn.ReLU()})
    report = Report()
    assert replace_modules(model, to(nn.SELU), report) is model
    assert [type(module).__name__ for module in model.modules()] == [
        "ModuleDict", "Sequential", "SELU", "ModuleList", "SELU", "Tanh", "SELU"
    ]  # fmt: skip
    assert [entry.layer for entry in report.changed] == ["a.0", "a.1.0", "b"]
    assert report.changed[0].what == "ReLU -> SELU"


def test_a_shared_module_is_asked_about_once_and_replaced_everywhere():
    shared = nn.ReLU()
    block = nn.Sequential(nn.Linear(2, 2), shared)
    model = nn.Sequential(shared, block, block, nn.Sequential(shared))
    asked = []
    report = Report()

    def policy(name, module):
        asked.append(name)
        return nn.SELU() if module is shared else None

    replace_modules(model, policy, report)
    assert asked == ["", "0", "1", "1.0", "3"]
    assert model[0] is model[1][1] is model[3][0]
    assert isinstance(model[0], nn.SELU)
    assert model[1] is model[2]
    assert report.changed[0].what == "ReLU -> SELU, also at 1.1, 3.0"


def test_the_root_may_be_replaced_and_is_returned():
    assert isinstance(replace_modules(nn.ReLU(), to(nn.SELU)), nn.SELU)


def test_the_inside_of_a_replacement_is_left_alone():
    model = nn.Sequential(nn.ReLU())
    old = model[0]
    replace_modules(model, lambda name, module: nn.Sequential(module, nn.ReLU()) if module is old else None)
    assert model[0][0] is old
    kept = replace_modules(model, lambda name, module: module)
    assert kept is model
    assert model[0][0] is old


def test_training_flag_device_and_dtype():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.BatchNorm1d(2)).to(torch.float64)
    model[1].eval()
    replace_modules(model, to(nn.PReLU))
    assert model.training
    assert not model[1].training
    assert model[1].weight.dtype == torch.float64
    model(torch.ones(3, 2, dtype=torch.float64))
    with torch.device("meta"):
        meta = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    replace_modules(meta, to(nn.PReLU))
    assert meta[1].weight.is_meta


def test_what_the_replacement_took_over_keeps_its_own():
    """The old module inside the new one: neither its flags nor its precision may change."""
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2).bfloat16(), nn.Dropout()))
    model[0][1].eval()

    def policy(name, module):
        return nn.Sequential(module, nn.BatchNorm1d(2)) if name == "0" else None

    replace_modules(model, policy)
    assert model[0][0][0].weight.dtype == torch.bfloat16
    assert not model[0][0][1].training
    assert model[0][1].weight.dtype == torch.bfloat16


def test_hooks_and_their_handles_are_carried_over():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    seen = []
    handles = [
        model[1].register_forward_hook(lambda m, a, o: seen.append(("after", type(m).__name__))),
        model[1].register_forward_hook(lambda m, a, k, o: seen.append(("kwargs", k)), with_kwargs=True),
        model[1].register_forward_pre_hook(lambda m, a: seen.append(("before", type(m).__name__))),
        model[1].register_full_backward_hook(lambda m, i, o: seen.append(("backward", type(m).__name__))),
    ]
    old = model[1]
    replace_modules(model, to(nn.SELU))
    model(torch.ones(1, 2)).sum().backward()
    assert seen == [("before", "SELU"), ("after", "SELU"), ("kwargs", {}), ("backward", "SELU")]
    for handle in handles:
        handle.remove()
    seen.clear()
    model(torch.ones(1, 2)).sum().backward()
    old(torch.ones(1, 2))
    assert seen == []
    assert not model[1]._forward_hooks
    assert not model[1]._forward_hooks_with_kwargs


def test_hooks_of_the_replacement_itself_stay():
    seen = []
    model = nn.Sequential(nn.ReLU())
    model[0].register_forward_hook(lambda *_: seen.append("old"))

    def make():
        new = nn.SELU()
        new.register_forward_hook(lambda *_: seen.append("new"))
        return new

    replace_modules(model, to(make))
    model(torch.ones(1))
    assert sorted(seen) == ["new", "old"]


def test_hooks_that_cannot_be_carried_are_said():
    model = nn.Sequential(nn.ReLU())
    model[0].register_state_dict_post_hook(lambda *_: None)
    with pytest.warns(UserWarning, match="layer '0': 1 of its state_dict hooks"):
        replace_modules(model, to(nn.SELU))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_weights_that_a_hook_computes_are_refused(wrap):
    model = nn.Sequential(nn.ReLU(), wrap(nn.Linear(2, 2)))
    before = copy.deepcopy([type(module) for module in model])
    with pytest.raises(ValueError, match=r"layer '1' computes its weight in a hook .*remove it first"):
        replace_modules(model, lambda name, module: nn.Identity() if name else None)
    assert [type(module) for module in model] == before  # the ReLU too
    wrapped = replace_modules(model, lambda name, module: nn.Sequential(module) if name == "1" else None)
    assert isinstance(wrapped[1], nn.Sequential)


def test_a_policy_that_fails_changes_nothing():
    model = nn.Sequential(nn.ReLU(), nn.Tanh())

    def policy(name, module):
        if isinstance(module, nn.Tanh):
            raise KeyError("boom")
        return nn.SELU() if name else None

    with pytest.raises(KeyError, match="boom"):
        replace_modules(model, policy)
    with pytest.raises(TypeError, match="the policy returned str for layer '0'"):
        replace_modules(model, lambda name, module: "SELU" if name else None)
    assert isinstance(model[0], nn.ReLU)


def test_scripted_modules_are_reported():
    model = nn.Sequential(_scripted(nn.Sequential(nn.ReLU(), nn.Tanh())), nn.ReLU())
    report = Report()
    replace_modules(model, lambda name, module: nn.SELU() if name in ("0.0", "1") else None, report)
    assert isinstance(model[1], nn.SELU)
    assert [(entry.layer, entry.what.split(";")[0]) for entry in report.left] == [("0.0", "inside a scripted module")]


def _scripted(module):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is on its way out in torch
        return torch.jit.script(module)


def test_parametrizations_are_not_layers():
    class Positive(nn.Module):
        def forward(self, w):
            return w.abs()

    layer = nn.Linear(2, 2)
    nn.utils.parametrize.register_parametrization(layer, "weight", Positive())
    names = []
    replace_modules(nn.Sequential(layer), functools.partial(lambda seen, name, module: seen.append(name), names))
    assert names == ["", "0"]


def test_state_dict_keys_and_tied_weights_survive():
    table, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    head.weight = table.weight
    model = nn.Sequential(table, nn.ReLU(), head)
    keys = list(model.state_dict())
    replace_modules(model, to(nn.SELU))
    assert list(model.state_dict()) == keys
    assert model[0].weight is model[2].weight


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_is_kept():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).cuda()
    assert replace_modules(model, to(nn.PReLU))[1].weight.is_cuda


def holds(group, *parameters):
    return len(group["params"]) == len(parameters) and all(
        a is b for a, b in zip(group["params"], parameters, strict=True)
    )


def test_parameters_go_and_come_group_by_group():
    a, b, norm = nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2)
    groups = [{"params": a.parameters(), "lr": 0.1}, {"params": b.parameters(), "lr": 0.2}]
    optimizer = torch.optim.Adam(groups)
    b(a(torch.randn(3, 2))).sum().backward()
    optimizer.step()
    kept = optimizer.state[b.weight]["exp_avg"].clone()
    hand_over(optimizer, [b.bias], {norm.weight: b.weight, norm.bias: b.weight})
    first, second = optimizer.param_groups
    assert holds(first, a.weight, a.bias)
    assert holds(second, b.weight, norm.weight, norm.bias)
    assert second["lr"] == 0.2
    assert b.bias not in optimizer.state
    assert torch.equal(optimizer.state[b.weight]["exp_avg"], kept)
    before = norm.weight.detach().clone()
    norm(b.weight).pow(3).sum().backward()
    optimizer.step()
    assert not torch.equal(norm.weight, before)


def test_what_joins_a_frozen_layer_stays_out():
    frozen, trained, norm = nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    hand_over(optimizer, [frozen.bias], {norm.weight: frozen.weight})
    assert holds(optimizer.param_groups[0], trained.weight, trained.bias)


def test_a_parameter_that_is_there_does_not_come_twice():
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    hand_over(optimizer, [], {layer.bias: layer.weight})
    assert holds(optimizer.param_groups[0], layer.weight, layer.bias)


def test_no_optimiser_is_nothing_to_do():
    hand_over(None, [nn.Parameter(torch.ones(1))], {})


def test_a_model_wrapped_for_several_processes_is_refused():
    model = nn.Linear(2, 2)
    refuse_wrapped(model, "surgery")
    wrapped = object.__new__(nn.parallel.DistributedDataParallel)  # its constructor needs a process group
    with pytest.raises(ValueError, match="surgery: change the model before wrapping it"):
        refuse_wrapped(wrapped, "surgery")
