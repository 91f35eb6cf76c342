"""Changes of the diagnosis one at a time: a named number halved or doubled, a branch left out."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import gc
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any

import lightning_tricks.diagnosis as package
from lightning_tricks.diagnosis.registry import RULES

FACTORS = (0.5, 2.0)


def _modules() -> dict[str, ModuleType]:
    names = [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return {name: importlib.import_module(name) for name in names}


MODULES = _modules()
TREES = {name: ast.parse(inspect.getsource(module)) for name, module in MODULES.items()}


@functools.cache
def _imports(name: str) -> tuple[tuple[str, str, str], ...]:
    """What a module imports of the diagnosis: the module, the name there, and the name here."""
    nodes = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.ImportFrom) and node.module]
    of_modules = [(f"{node.module}.{alias.name}", "", alias) for node in nodes for alias in node.names]
    of_names = [(str(node.module), alias.name, alias) for node in nodes for alias in node.names]
    return tuple(
        (module, there, alias.asname or alias.name)
        for module, there, alias in (*of_modules, *of_names)
        if module in MODULES
    )


@functools.cache
def readers(name: str) -> frozenset[str]:
    """A module and all that import it, or one that does."""
    direct = [other for other in MODULES if any(origin == name for origin, _, _ in _imports(other))]
    return frozenset([name]).union(*(readers(other) for other in direct if other != name))


@dataclasses.dataclass(frozen=True)
class Variant:
    """One change: a module, what in it, and how it is made for as long as a ``with`` block lasts."""

    module: str
    what: str
    how: str
    made: Callable[[], contextlib.AbstractContextManager[None]] = dataclasses.field(compare=False)
    line: tuple[str, int] | None = None  # of a branch, by its file, what runs where the condition holds

    @property
    def name(self) -> str:
        return f"{self.module.removeprefix(package.__name__ + '.')} {self.what} {self.how}"

    @property
    def rules(self) -> frozenset[str]:
        """The problems whose rules it can alter."""
        altered = readers(self.module)
        return frozenset(rule.problem for rule in RULES if rule.judge.__module__ in altered)


def constants() -> list[Variant]:
    """Every number of ``diagnosis/`` that has a name, halved and doubled."""
    return [
        Variant(module, what, f"{value:g} -> {changed:g}", functools.partial(_set, module, attribute, new))
        for module in MODULES
        for attribute, what, value, renew in _numbers(module)
        for changed in dict.fromkeys(_scaled(value, factor) for factor in FACTORS)
        if changed != value
        for new in [renew(changed)]
    ]


def _scaled(value: float, factor: float) -> float:
    """Whole numbers stay whole, and at least 1."""
    return max(1, round(value * factor)) if isinstance(value, int) else value * factor


def _numbers(module: str) -> Iterator[tuple[str, str, float, Callable[[float], Any]]]:
    """The attribute of the module, what it is called, its value, and the attribute with another one."""
    for node in TREES[module].body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [target.id for target in targets if isinstance(target, ast.Name) and target.id.isupper()]
        if isinstance(node, ast.ClassDef) and dataclasses.is_dataclass(getattr(MODULES[module], node.name)):
            record = getattr(MODULES[module], node.name)
            if isinstance(record, type):  # a class of records, not the one record of a rule's thresholds
                continue
            for field in dataclasses.fields(record):
                for what, value, renew in _parts(field.name, getattr(record, field.name)):
                    replaced = functools.partial(_replaced, record, field.name, renew)
                    yield node.name, f"{node.name}.{what}", value, replaced
        for name in names:
            for what, value, renew in _parts(name, getattr(MODULES[module], name)):
                yield name, what, value, renew


def _replaced(record: Any, field: str, renew: Callable[[float], Any], value: float) -> Any:
    return dataclasses.replace(record, **{field: renew(value)})


def _parts(name: str, value: Any) -> Iterator[tuple[str, float, Callable[[float], Any]]]:
    """A number, or the numbers of a tuple."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name, value, lambda new: new
    if isinstance(value, tuple) and all(isinstance(each, (int, float)) for each in value):
        for k, each in enumerate(value):
            yield f"{name}[{k}]", each, lambda new, k=k: (*value[:k], new, *value[k + 1 :])


@contextlib.contextmanager
def _set(module: str, attribute: str, value: Any) -> Iterator[None]:
    """Set it where it stands and wherever it was imported to."""
    old = getattr(MODULES[module], attribute)
    places = [(module, attribute)]
    places += [
        (other, here)
        for other in MODULES
        for origin, there, here in _imports(other)
        if (origin, there) == (module, attribute)
    ]
    for name, here in places:
        setattr(MODULES[name], here, value)
    try:
        yield
    finally:
        for name, here in places:
            setattr(MODULES[name], here, old)


def branches() -> list[Variant]:
    """Every ``if`` inside of a function of ``diagnosis/``, as if its condition never held."""
    functions: dict[tuple[str, str, int], list[FunctionType]] = {}
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__module__ in MODULES:  # isinstance asks some things of torch
            code = thing.__code__
            functions.setdefault((thing.__module__, code.co_name, code.co_firstlineno), []).append(thing)
    found = []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.If):
                code = _code(module, node)
                there = functions.get((module, code.co_name, code.co_firstlineno), []) if code else []
                if code and there:
                    text = f"line {node.lineno}: if {ast.unparse(node.test)}"
                    text = text if len(text) <= 90 else f"{text[:87]}..."
                    line = (code.co_filename, node.body[0].lineno)
                    found.append(Variant(module, text, "never", functools.partial(_swap, there, code), line))
    return found


def _code(module: str, branch: ast.If) -> CodeType | None:
    """The code of the function around a branch, without it; None where there is no function."""
    test, branch.test = branch.test, ast.copy_location(ast.Constant(False), branch.test)
    try:
        whole = compile(TREES[module], MODULES[module].__file__ or module, "exec", dont_inherit=True)
    finally:
        branch.test = test
    around = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.FunctionDef)]
    inside = [node for node in around if any(each is branch for each in ast.walk(node))]
    if not inside:
        return None
    innermost = max(inside, key=lambda node: node.lineno)
    return next(
        code
        for code in _codes(whole)
        if code.co_name == innermost.name
        and code.co_firstlineno == min([innermost.lineno, *(d.lineno for d in innermost.decorator_list)])
    )


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


@contextlib.contextmanager
def _swap(functions: Sequence[FunctionType], code: CodeType) -> Iterator[None]:
    fitting = [f for f in functions if f.__code__.co_freevars == code.co_freevars]
    old = [function.__code__ for function in fitting]
    for function in fitting:
        function.__code__ = code
    try:
        yield
    finally:
        for function, own in zip(fitting, old, strict=True):
            function.__code__ = own
