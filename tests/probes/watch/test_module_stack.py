"""Names: an operation by a leaf module has its path, others the path and the function, further calls a number."""

import torch
import torch.nn.functional as F
import torchmetrics
from torch import nn

from lightning_tricks.probes import probe


def names(model, *inputs):
    with probe(model) as p:
        model(*inputs)
    snapshot = p.snapshot()
    return [r.name for r in snapshot.weighted], [r.name for r in snapshot.activations]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.shared = nn.Linear(4, 4)

    def forward(self, x):
        x = F.relu(self.shared(self.net(x)))
        x = F.relu(self.shared(x))
        return torch.tanh(self.shared(x) @ self.shared.weight)


def test_the_contract():
    weighted, activations = names(Net(), torch.randn(2, 4))
    assert weighted == ["net.0", "net.2", "shared", "shared_2", "shared_3", "matmul"]
    assert activations == ["net.1", "relu", "relu_2", "tanh"]
    outer = nn.Sequential(nn.Identity(), Net())
    weighted, activations = names(outer, torch.randn(2, 4))
    assert weighted == ["1.net.0", "1.net.2", "1.shared", "1.shared_2", "1.shared_3", "1.matmul"]
    assert activations == ["1.net.1", "1.relu", "1.relu_2", "1.tanh"]


def test_a_leaf_module_with_weights_and_activation_has_one_name_in_both_lists():
    class SELULayer(nn.Linear):
        def forward(self, x):
            return F.selu(super().forward(x))

    weighted, activations = names(nn.Sequential(SELULayer(4, 4), SELULayer(4, 4)), torch.randn(2, 4))
    assert weighted == activations == ["0", "1"]


def test_a_module_called_relu_2_by_its_own_right_keeps_its_name():
    class Numbered(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu, self.relu_2 = nn.ReLU(), nn.Tanh()

        def forward(self, x):
            return self.relu_2(F.relu(self.relu(self.relu(x))))

    with probe(Numbered()) as p:
        p._model(torch.randn(2, 3))
    records = p.snapshot().activations
    assert len(records) == 4
    assert len({record.name for record in records}) == 4
    assert next(r for r in records if r.name == "relu_2").function == "tanh"


def test_wrappers_leave_no_mark_on_names():
    compiled = torch.compile(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), backend="eager")
    assert names(compiled, torch.randn(2, 3)) == (["0"], ["1"])


def test_the_order_is_that_of_execution():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.last(torch.relu(self.first(x)))

    model = Backwards()
    with probe(model) as p:
        model(torch.randn(2, 3))
    records = [r for r in p.snapshot().records() if hasattr(r, "order")]
    assert [r.name for r in records] == ["first", "relu", "last"]
    assert [r.order for r in records] == sorted(r.order for r in records)


def test_teachers_and_metrics_are_not_of_the_model():
    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.accuracy = nn.Linear(4, 3), torchmetrics.MeanMetric()

        def forward(self, x):
            out = self.layer(x)
            self.accuracy(torch.sigmoid(out).mean().detach())
            return out

    class Scorer(torchmetrics.Metric):
        def __init__(self):
            super().__init__()
            self.add_state("total", torch.tensor(0.0))
            self.network = nn.Sequential(nn.Linear(3, 3), nn.ReLU())

        def update(self, x):
            self.total += self.network(torch.sigmoid(x)).sum().detach()

        def compute(self):
            return self.total

    student, teacher = Student(), nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    student.scorer = Scorer()
    x = torch.randn(5, 4)
    with probe(student) as p:
        out = student(x)
        with torch.no_grad():
            target = teacher(x)
            torch.sigmoid(out)  # the loop's own arithmetic
        student.scorer(out)
        student.scorer.update(out.detach())
        F.mse_loss(out, target).backward()
    snapshot = p.snapshot()
    assert [r.name for r in snapshot.weighted] == ["layer"]
    assert [r.name for r in snapshot.activations] == ["sigmoid"]


def test_a_model_inside_a_foreign_wrapper_is_still_seen():
    class Wrapper(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.more = inner, nn.Linear(2, 2)

        def forward(self, x):
            return self.more(torch.tanh(self.inner(x)))

    inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with probe(inner) as p:
        Wrapper(inner)(torch.randn(3, 2))
    assert [r.name for r in p.snapshot().weighted] == ["0"]
    assert [r.name for r in p.snapshot().activations] == ["1"]
