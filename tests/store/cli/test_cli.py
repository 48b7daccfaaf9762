"""The command line on a wire server: what holds for every command."""

from __future__ import annotations

import pytest
from command_line import Run

pytestmark = pytest.mark.wire


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "words"),
    [
        (["accounts", "add", "a:b", "--password-stdin"], "x\n", 1, "without a colon"),
        (["accounts", "add", "a", "--password-stdin"], "\n", 1, "1 to 72 bytes"),
        (["accounts", "add", "a", "--password-stdin"], "x" * 73 + "\n", 1, "1 to 72 bytes"),
        (["accounts", "add", "a", "--password-stdin", "--label", "x"], "x\n", 2, "name=value"),
        (["accounts", "add", "a"], "", 2, "--password-stdin"),
        (["accounts", "add"], "", 2, "NAME"),
        (["accounts", "remove", "nobody"], "", 1, "no account nobody"),
        (["accounts", "passwd", "nobody", "--password-stdin"], "x\n", 1, "no account nobody"),
        (["acl", "remove", "--seq", "5"], "", 1, "no entry with seq 5"),
        (["acl", "add", "--seq", "x", "--actions", "pull"], "", 2, "--seq"),
        (["acl", "add", "--seq", "1", "--name", "/(/", "--actions", ""], "", 1, "invalid"),
        (["acl", "add", "--seq", "1", "--ip", "10.0.0", "--actions", ""], "", 1, "invalid"),
        (
            ["acl", "add", "--seq", "1", "--label", "a=b", "--label", "a=c", "--actions", ""],
            "",
            2,
            "a is given twice",
        ),
        (["acl", "remove", "--seq", str(2**70)], "", 2, "--seq"),
        (["acl", "explain", "a", "b", "--address", "foo"], "", 1, "--address: foo"),
        (["usage", "refresh", "--from", "2026-11-10", "--to", "2026-11-09"], "", 1, "--to: "),
        (["events", "rejected", "--drop", "x"], "", 1, "no rejected event x"),
        (["events", "import", "none.ndjson"], "", 2, "none.ndjson"),
        (["events", "import", "--registry", "x"], '{"events":[]}\n', 2, "--registry: x"),
        (["database", "shard", "--dry-run"], "", 1, "not a sharded cluster"),
        (["nonsense"], "", 2, "nonsense"),
        (["--config", "none.yml", "check"], "", 1, "none.yml"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_an_error_is_one_line_and_the_status_tells_wrong_usage(
    run: Run, arguments: list[str], stdin: str, status: int, words: str
) -> None:
    result = run(*arguments, stdin=stdin)

    assert result.status == status
    assert result.err.startswith("rns: ")
    assert result.err.count("\n") == 1
    assert words in result.err
