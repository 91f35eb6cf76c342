"""Imports run one way, without circles; private names of other libraries, and lightning, stand in one room."""

from __future__ import annotations

import ast
import functools
import graphlib
from collections.abc import Iterator
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch

PACKAGE = Path(__file__).parents[1] / "lightning_tricks"
# Each may import what stands in an earlier group or in its own; circles are forbidden anyway.
LEVELS = [
    {"_compat"},
    {"activations", "model", "stats"},
    {"init"},
    {"nn"},
    {"surgery", "probes"},
    {"diagnosis"},
    {"report"},
    {"experiments"},
    {"treatment"},
    {"watch"},
    {"callbacks"},
    {"checkup", "verify", "ensemble", "modules", "comparison", "summary", "testing"},
    {"commands"},
]
TORCH_ONLY = ("activations", "model", "stats", "nn", "init", "surgery", "probes")
NAMES_LIGHTNING = {"lightning", "pytorch_lightning"}
# Private methods that torch calls, or offers to be overridden: a subclass defines them under the name that torch gives.
OVERRIDDEN = {
    "_apply",
    "_check_input_dim",
    "_load_from_state_dict",
    "_save_to_state_dict",
    "_version",
}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


MODULES = {module_of(path): path for path in files()}


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """Modules that a file imports, each with the name taken from it, also inside functions and for type checking."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: relative import"
            assert node.level == 0, f"{path}: relative import"
            yield from ((node.module, alias.name) for alias in node.names)


def dependencies(path: Path) -> set[str]:
    """The package's own modules that a file depends on."""
    found = set()
    for module, name in imported(path):
        if module.split(".")[0] == "lightning_tricks":
            inner = f"{module}.{name}"
            found.add(inner if inner in MODULES else module)
    return found


def level_of(part: str) -> int | None:
    return next((index for index, group in enumerate(LEVELS) if part in group), None)


def private_uses(path: Path) -> list[str]:
    """Private names of other libraries that a file touches: attributes, imports and names in getattr and its kin."""
    own, torchs, found = own_private_names(), private_names_of_torch(), []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute):
            names = [node.attr]
            mine = getattr(node.value, "id", "") in ("self", "cls") or _is_super(node.value)
            if node.attr in torchs and not mine:
                found.append(f"line {node.lineno}: {node.attr}")  # also where a class of ours has an attribute so named
                continue
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value] if node.value in private_names_of_lightning() else []  # for vars(), or kept by a name
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "getattr",
            "hasattr",
            "setattr",
            "delattr",
        ):
            names = [node.args[1].value] if isinstance(node.args[1], ast.Constant) else []
        else:
            continue
        private = [name for name in names if name.startswith("_") and not name.endswith("__") and name not in own]
        found += [f"line {node.lineno}: {name}" for name in private]
    return found


def _is_super(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "super"


@functools.cache
def private_names_of_torch() -> frozenset[str]:
    """What modules, tensors and optimisers have beside their public attributes."""
    module, tensor = torch.nn.Linear(1, 1), torch.zeros(1)
    optimizer = torch.optim.SGD(module.parameters())
    names = {name for thing in (module, tensor, optimizer) for name in dir(thing)}
    return frozenset(name for name in names if name.startswith("_") and not name.endswith("__"))


@functools.cache
def private_names_of_lightning() -> frozenset[str]:
    """The same of modules and Trainers, and of torch's modules, which theirs are."""
    names = {*dir(L.LightningModule()), *dir(L.Trainer(logger=False, enable_checkpointing=False, barebones=True))}
    return frozenset(name for name in names if name.startswith("_") and not name.endswith("__"))


@functools.cache
def own_private_names() -> frozenset[str]:
    """Private names that the package itself defines: functions, classes, variables, attributes, modules."""
    names = {part for module in MODULES for part in module.split(".")} | OVERRIDDEN
    for path in files():
        if "_compat" in path.parts:
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                    names.add(node.attr)
            elif isinstance(node, ast.alias) and node.asname:
                names.add(node.asname)
    return frozenset(names)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    own = level_of(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    if own is None:
        assert path.name in ("__init__.py", "__main__.py")  # the table of contents
        return
    for name in dependencies(path):
        parts = name.split(".")
        assert len(parts) > 1, f"{path} imports the whole package"
        other = level_of(parts[1])
        assert other is not None, f"{path}: {name} has no level"
        assert other <= own, f"{path} imports {name}, which stands above it"


def test_there_are_no_circles() -> None:
    """Within a room or between rooms; a package's table of contents comes after what it lists."""
    graph = {module: dependencies(path) for module, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_a_circle_is_found() -> None:
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_names_of_others_stand_in_one_room(path: Path) -> None:
    if "_compat" not in path.parts:
        assert not private_uses(path), f"{path}: move these to _compat: {private_uses(path)}"


BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.mark.parametrize("path", sorted(BENCHMARKS.rglob("*.py")), ids=lambda path: str(path.relative_to(BENCHMARKS)))
def test_benchmarks_ask_the_one_predicate_for_a_batch_norm(path: Path) -> None:
    named = {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    named |= {
        alias.name for node in ast.walk(tree_of(path)) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert not named & {"_BatchNorm", "_NormBase"}, f"{path}: ask lightning_tricks.model.layers.is_batch_norm"


def test_a_private_name_is_found(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(
        "import torch._dynamo\nfrom torch.nn.modules.conv import _ConvNd\nx._base\ngetattr(x, '_scale')\n"
        "NAME = '_trainer'\n"
    )
    assert len(private_uses(file)) == 5


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_one_room_names_lightning(path: Path) -> None:
    named = {module for module, _ in imported(path) if module.split(".")[0] in NAMES_LIGHTNING}
    assert not named or "_compat" in path.parts, f"{path} imports {sorted(named)}"


def test_torch_only_rooms_import_torch_and_numpy_only() -> None:
    for room in TORCH_ONLY:
        for path in MODULES.values():
            if path.relative_to(PACKAGE).parts[0].removesuffix(".py") == room:
                outside = {module.split(".")[0] for module, _ in imported(path)} - {"lightning_tricks"}
                third_party = outside & {
                    *NAMES_LIGHTNING,
                    "torchmetrics",
                    "torchvision",
                    "matplotlib",
                    "rich",
                    "sklearn",
                    "scipy",
                }
                assert not third_party, f"{path} imports {sorted(third_party)}"


def test_a_doctor_for_any_loop_needs_no_lightning() -> None:
    """Neither the room nor what it leads to."""
    waiting, seen = [module for module in MODULES if module.startswith("lightning_tricks.watch")], set()
    while waiting:
        module = waiting.pop()
        if module not in seen and module in MODULES:
            seen.add(module)
            waiting += dependencies(MODULES[module])
            named = {name.split(".")[0] for name, _ in imported(MODULES[module])}
            assert not named & NAMES_LIGHTNING, module
    assert "lightning_tricks.probes.probe" in seen


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_grows_beyond_reading(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


def test_no_room_grows_beyond_finding() -> None:
    one_file_each = {PACKAGE / "diagnosis" / "rules", PACKAGE / "experiments"}  # a problem, an experiment
    for room in {path.parent for path in files()} - one_file_each:
        assert len([path for path in room.glob("*.py") if path.name != "__init__.py"]) <= 12, room


def test_a_class_name_has_one_meaning() -> None:
    """``LIMITS`` excepted: the thresholds of a rule or experiment, in its file."""
    named: dict[str, list[Path]] = {}
    for path in files():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef) and node.name != "LIMITS":
                named.setdefault(node.name, []).append(path.relative_to(PACKAGE))
    assert not {name: paths for name, paths in named.items() if len(set(paths)) > 1}
