"""Whether the tests of a module notice when its conditions are turned round.

    python benchmarks/mutants.py app/migration/states.py tests/unit/migration/test_states.py

Each mutant is one change: a comparison turned round or moved to its edge, a part of a condition
left out, `and` for `or`, a truth value turned round. Prints those that the tests let live. The
module is put back at the end; run it in a copy of the checkout all the same. Some mutants change
nothing that anybody could see, as a default that every caller overrides: read each.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

TIMEOUT_S = 300.0  # a mutant may wait for ever
Change = tuple[ast.AST, str, Callable[[], None], Callable[[], None]]

TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
EDGE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}


def find_changes(tree: ast.Module) -> Iterator[Change]:
    """Every change of a module, with what makes it and what takes it back."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for place, old in enumerate(node.ops):
                for name, other in (("turned", TURNED), ("edge", EDGE)):
                    if type(old) in other:
                        yield _in_list(node, name, node.ops, place, other[type(old)]())
        elif isinstance(node, ast.BoolOp):
            other_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield _of_field(node, "and for or", "op", other_op)
            for place in range(len(node.values)):
                left_out = ast.Constant(isinstance(node.op, ast.And))
                yield _in_list(node, "left out", node.values, place, left_out)
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            yield _of_field(node, "turned", "test", ast.UnaryOp(ast.Not(), node.test))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            yield _of_field(node, "turned", "value", not node.value)


def _of_field(node: ast.AST, name: str, field: str, new: object) -> Change:
    old = getattr(node, field)
    return node, name, lambda: setattr(node, field, new), lambda: setattr(node, field, old)


def _in_list(node: ast.AST, name: str, items: list[object], place: int, new: object) -> Change:
    old = items[place]

    def put(value: object) -> None:
        items[place] = value

    return node, name, lambda: put(new), lambda: put(old)


def is_noticed(tests: list[str]) -> bool:
    """Whether a test fails, or waits for ever."""
    # -B: bytecode of one mutant would pass for that of the next, written in the same second.
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return True
    return ended.returncode != 0


def main() -> None:
    module, tests = Path(sys.argv[1]), sys.argv[2:]
    source = module.read_text()
    lines, tree = source.splitlines(), ast.parse(source)
    if is_noticed(tests):
        sys.exit("the tests fail as it is")
    number = alive = 0
    try:
        for node, name, make, take_back in find_changes(tree):
            make()
            module.write_text(ast.unparse(ast.fix_missing_locations(tree)))
            take_back()
            number += 1
            if not is_noticed(tests):
                alive += 1
                line = getattr(node, "lineno", 1)
                print(f"{module}:{line}: {name}: {lines[line - 1].strip()}", flush=True)
    finally:
        module.write_text(source)
    print(f"{alive} of {number} mutants live")


if __name__ == "__main__":
    main()
