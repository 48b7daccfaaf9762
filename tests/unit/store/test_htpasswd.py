"""The lines of an htpasswd file."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.store.htpasswd import Htpasswd

HASH = "$2y$05$LO.vzwpWC5LZGqThvEfznu8qhb5SGqvBSWY1J3yZ4AxtMRZ3kN5jC"


@pytest.mark.parametrize("sign", ["\f", "\r", "\x1c", "\x85", "\u2028"], ids=ascii)
def test_a_line_ends_where_the_registry_ends_it(tmp_path: Path, sign: str) -> None:
    file = tmp_path / "htpasswd"
    file.write_bytes(f"alice:{HASH}\r\nops:{sign}admin:{HASH}\n".encode())

    htpasswd = Htpasswd(file)

    assert list(htpasswd.find_all()) == ["alice"]
    assert htpasswd.problems == ["line 2: ops: not bcrypt; use htpasswd -B"]
