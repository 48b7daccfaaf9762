"""FerretDB with SQLite as the wire server: a second opinion on what our queries mean.

`make ferretdb` runs tests/store on it. `.ci/run` builds the program. What it cannot do is named
here, and only what fails by that is skipped; anything else that it refuses is a failure.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import ConnectionFailure

IS_MEANT = os.environ.get("TEST_ENGINE") == "ferretdb"
PROGRAM = Path.home() / ".cache" / "rns-tests" / "bin" / "ferretdb"
STARTED_S = 30.0

# Options of indexes that change nothing of what is found at once.
UNKNOWN_OPTIONS = ("expireAfterSeconds", "sparse")
# What its errors say, and what that is.
REFUSES = {"nested arrays are not supported": "keeps no array in an array, as the hours of a day"}
# What it answers wrongly, or later than anybody would wait, by the beginning of a test's name.
CANNOT = {
    "keeps neither null nor [] of an upsert": [
        "cli/test_accounts.py::test_acl_entries",
        "cli/test_accounts.py::test_an_access_is_explained",
        "cli/test_cli_tokens.py::",
        "cli/test_imports.py::",
        "test_tokens.py::",
    ],
    "does not cut an array that $push adds to ($slice)": [
        "test_migration_records.py::test_lists_that_are_ours",
        "test_migration_records.py::test_the_last_twenty_runs",
        "test_migrations.py::test_three_repositories",
    ],
    "adds up one field of a group only": [
        "cli/test_migrate.py::test_jobs_that_copied_more",
        "test_migrations.py::test_the_bytes_of_a_copy",
    ],
    "compares and writes in two steps": [
        "test_migrations.py::test_of_many_workers_one",
        "test_migrations.py::test_with_many_senders",
    ],
    "has no options of an index that could differ": [
        "test_indexes.py::test_an_index_that_is_in_the_way",
    ],
    "ends the connection at a decimal number, and at code": [
        "test_acl.py::test_a_problem_is_named",
        "test_acl.py::test_an_account_that_cannot_be_read",
        "test_acl.py::test_an_anonymous_account_that_cannot_be_read",
        "test_acl.py::test_an_entry_that_cannot_be_read",
    ],
    "reads all documents for most queries": [
        "catalogue/test_catalogue.py::test_more_tags_than_one",
        "cli/test_cli_catalogue.py::test_what_no_event_told",
        "cli/test_serve.py::",
        "notifications/test_derivation.py::test_the_recorded",
        "notifications/test_projector.py::test_a_backlog",
        "notifications/test_projector.py::test_a_projector_that_has",
        "notifications/test_projector.py::test_after_an_outage",
        "notifications/test_projector.py::test_an_envelope_of_many",
        "notifications/test_projector.py::test_derived_anew",
        "test_migrations.py::test_the_answers",
        "test_queries.py::",
        "test_usage.py::test_demonstration_data",
    ],
    # Not of the database that is given to the tests.
    "is not meant": [
        "cli/test_mistakes.py::test_a_command_leaves",
        "embedded/",
        "notifications/test_elections.py::test_single_writes",
    ],
}


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """FerretDB with its data in `directory`; gives its URI."""
    program = _find_program() or str(PROGRAM)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [program, "--handler=sqlite", f"--sqlite-url=file:{directory}/"]
    command += [f"--listen-addr={address}", f"--state-dir={directory}", "--debug-addr=-"]
    command += ["--telemetry=disable", "--log-level=error"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(address)
            yield f"mongodb://{address}/"
        finally:
            process.kill()


def _find_program() -> str | None:
    return shutil.which("ferretdb") or shutil.which(PROGRAM)


def _wait_for(address: str) -> None:
    over = time.monotonic() + STARTED_S
    with MongoClient[dict[str, Any]](address, serverSelectionTimeoutMS=500) as client:
        while True:
            try:
                client.admin.command("ping")
                return
            except ConnectionFailure:
                if time.monotonic() > over:
                    raise


def leave_out(items: list[pytest.Item]) -> None:
    """Mark those tests of the store that cannot pass, each with its reason."""
    is_there = "CI" in os.environ or _find_program()
    for item in items:
        if not is_there:
            item.add_marker(pytest.mark.skip(reason="ferretdb is missing"))
        name = item.nodeid.removeprefix("tests/store/")
        for reason, beginnings in CANNOT.items():
            if name.startswith(tuple(beginnings)):
                item.add_marker(pytest.mark.skip(reason=f"FerretDB {reason}"))


def explain(report: pytest.TestReport, error: BaseException | None) -> None:
    """Make a failure by what it refuses a skipped test."""
    while error:
        for words, reason in REFUSES.items():
            if words in str(error):
                report.outcome = "skipped"
                report.longrepr = (str(report.fspath), 0, f"FerretDB {reason}")
        error = error.__cause__ or error.__context__


if IS_MEANT:
    _create_index = Collection.create_index

    def _create_index_without(self: Any, keys: Any, **options: Any) -> str:
        known = {name: value for name, value in options.items() if name not in UNKNOWN_OPTIONS}
        return _create_index(self, keys, **known)

    Collection.create_index = _create_index_without  # type: ignore[method-assign]
