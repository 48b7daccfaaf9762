"""Which rules no test watches: flips one condition of a module at a time and runs its tests.

    python tests/mutants.py app/migration/copier.py tests/unit/migration

A mutant that no test notices is printed with its line. Nothing is written: each runs in a process
of its own, with the changed module in memory.
"""

from __future__ import annotations

import ast
import copy
import io
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import mongomock
import msgspec
import pymongo
import pytest
import requests

PRELOADED = (mongomock, msgspec, pymongo, requests)  # so that each mutant begins fast
LONGEST_S = 300.0  # of one mutant: it may wait for ever, which is noticed too
FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}


def find_mutants(tree: ast.Module) -> Iterator[tuple[ast.Module, int, str]]:
    """Every tree with one condition changed, the line, and what was changed."""
    for number, node in enumerate(ast.walk(tree)):
        for change in _changes_of(node):
            mutant = copy.deepcopy(tree)
            target = next(x for place, x in enumerate(ast.walk(mutant)) if place == number)
            before = ast.unparse(target)
            what = change(target)
            if what:
                yield ast.fix_missing_locations(mutant), target.lineno, f"{what}: {before}"


def _changes_of(node: ast.AST) -> list[Any]:
    if isinstance(node, ast.Compare):
        return [_flip_comparison]
    if isinstance(node, ast.BoolOp):
        return [_swap_and_or, *(_make_drop(place) for place in range(len(node.values)))]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return [_drop_not]
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        is_simple = not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp)
        return [_negate_test] if is_simple else []
    return []


def _flip_comparison(node: ast.Compare) -> str:
    node.ops[0] = FLIPPED[type(node.ops[0])]()
    return "flipped"


def _swap_and_or(node: ast.BoolOp) -> str:
    node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    return "and/or swapped"


def _make_drop(place: int) -> Any:
    def drop(node: ast.BoolOp) -> str:
        dropped = ast.unparse(node.values.pop(place))
        return f"dropped {dropped}"

    return drop


def _drop_not(node: ast.UnaryOp) -> str:
    node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)
    return "not dropped"


def _negate_test(node: ast.If) -> str:
    node.test = ast.UnaryOp(ast.Not(), node.test)
    return "negated the test of"


class Changed(MetaPathFinder, Loader):
    """Imports one module from a tree in place of its file."""

    def __init__(self, name: str, file: Path, tree: ast.Module) -> None:
        self._name, self._file, self._tree = name, file, tree

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return ModuleSpec(fullname, self, origin=str(self._file))

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._file)
        exec(compile(self._tree, str(self._file), "exec"), module.__dict__)


def is_noticed(name: str, file: Path, tree: ast.Module, tests: list[str]) -> bool:
    """Whether any test fails, or does not end, with a module that was changed."""
    child = os.fork()
    if not child:
        sys.meta_path.insert(0, Changed(name, file, tree))
        watch = threading.Timer(LONGEST_S, os._exit, [1])
        watch.daemon = True
        watch.start()
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])
        os._exit(int(status))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def main(path: str, *tests: str) -> int:
    file = Path(path)
    name = ".".join(file.with_suffix("").parts)
    tree = ast.parse(file.read_text())
    if is_noticed(name, file, tree, list(tests)):
        print("the tests fail without any change")
        return 2
    survivors = number = 0
    began = time.monotonic()
    for mutant, line, what in find_mutants(tree):
        number += 1
        if not is_noticed(name, file, mutant, list(tests)):
            survivors += 1
            print(f"{file}:{line}: {' '.join(what.split())[:160]}", flush=True)
    print(f"{survivors} of {number} were not noticed, {time.monotonic() - began:.0f} s")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
