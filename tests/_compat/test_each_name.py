"""Whether each private name in the room is taken away by one of its tests, but for those without another name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[2] / "lightning_tricks" / "_compat"
# As old as nn.Module, without another name: the dictionaries that a module keeps, and the method that .to() calls.
DICTIONARIES = {
    *("_parameters", "_buffers", "_modules", "_apply"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_backward_pre_hooks", "_backward_hooks"),
    *("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
}
# Looked for, and nothing is lost where nobody has them: what Lightning sets, and what is taken out of a path.
MET_OR_NOT = {"_fabric", "_forward_module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
OTHERS = {"_compat", "_fields", "_getframe", "_C", "_ops", "_functorch"}  # Python's, and modules that hold the names
AFFIXES = {"_l", "_reverse"}  # of the parameters of recurrent layers, whose public names they make


def names(path: Path) -> Iterator[str]:
    """Private names of other libraries: attributes, imports, words."""
    tree = ast.parse(path.read_text())
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    own |= {node.asname for node in ast.walk(tree) if isinstance(node, ast.alias) and node.asname}
    for node in ast.walk(tree):
        found = list[str]()
        if isinstance(node, ast.Attribute):
            found = [node.attr]
        elif isinstance(node, ast.ImportFrom):
            found = [*str(node.module).split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            found = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = node.value.split(".")
        yield from (each for each in found if re.fullmatch(r"_\w+(?<!__)", each) and each not in own)


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.stem)
def test_each_private_name_is_taken_away(path: Path) -> None:
    tests = "\n".join(test.read_text() for test in Path(__file__).parent.glob("*.py") if test != Path(__file__))
    tested = set(re.findall(r"\b_\w+", tests))
    assert not set(names(path)) - tested - DICTIONARIES - MET_OR_NOT - OTHERS - AFFIXES
