"""What the tests of the command line share: its result, and a configured plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

PLAN = """
migrations:
  - name: dc2
    source: {url: "https://old.invalid"}
    target: {url: "https://new.invalid"}
"""


class Result(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Result]


def rows(result: Result) -> list[Any]:
    return [json.loads(line) for line in result.out.splitlines()]
