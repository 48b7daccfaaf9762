"""`rns catalogue` on a wire server."""

from __future__ import annotations

import pytest
from command_line import Run

pytestmark = pytest.mark.wire


def test_an_import_needs_the_address_of_a_registry(run: Run) -> None:
    result = run("catalogue", "import")

    assert (result.status, result.err) == (1, "rns: registries: default has no url\n")
