"""The tests that are left out on FerretDB are tests that are there."""

from __future__ import annotations

from pathlib import Path

import ferretdb
import pytest

STORE = Path(__file__).parents[1] / "store"


@pytest.mark.parametrize("beginning", [one for some in ferretdb.CANNOT.values() for one in some])
def test_what_is_left_out_on_ferretdb_is_a_test_of_the_store(beginning: str) -> None:
    place, _, name = beginning.partition("::")

    assert (STORE / place).exists()
    assert not name or f"\ndef {name}" in (STORE / place).read_text()
