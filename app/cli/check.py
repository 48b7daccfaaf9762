"""`rns check`: whether the server can work, and how the registries are wired."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import click
import msgspec

from app.cli.accounts import ACTIONS, order_lines
from app.cli.explain import explain_queries
from app.cli.shared import as_json, configuration_in_use, open_stores
from app.errors import AccountsUnavailable, AppError
from app.migration import load_plans
from app.notifications.wiring import Wiring, find_arrival, find_wiring
from app.registry.token_server import TokenServer
from app.rules.access import find_disorder
from app.server.preparation import PASSWORD_FILE, first_account_name, token_server_of
from app.settings import Settings
from app.store import Stores
from app.version import VERSION

LOOK_S = 0.5  # between two looks for what came


class Finding(NamedTuple):
    """One line; after an `error` the server cannot work."""

    subject: str
    level: Literal["ok", "warning", "error"]
    text: str


@click.command()
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(1, 3600),
    metavar="SECONDS",
    help="Then wait for the next push or pull, and say what came; exit 1 if nothing.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Only say how the database carries out each query, the worst first. It reads much.",
)
@as_json
@click.pass_obj
def check(settings: Settings, wait_s: int | None, explain: bool, as_json: bool) -> None:
    """Check configuration, database, accounts, ACL and wiring; exit 1 if the server cannot work.

    What is ignored, refused or odd is listed; it is no error.
    """
    if explain:
        if wait_s:
            raise click.UsageError("--explain and --wait are different questions")
        explain_queries(settings, as_json=as_json)
        return
    errors = []
    for finding in _check(settings, wait_s):
        if finding.level == "error":
            errors.append(finding.text)
        if as_json:
            print(msgspec.json.encode(finding._asdict()).decode(), flush=True)
        else:
            sign = "ok: " if finding.level == "ok" else ""
            print(f"{finding.subject:<15}{sign}{finding.text}", flush=True)
    if errors:
        raise AppError(errors[0])


def _check(settings: Settings, wait_s: int | None) -> Iterator[Finding]:
    load_plans(settings)
    yield Finding("configuration", "ok", f"{configuration_in_use()}, version {VERSION}")
    stores = open_stores(settings, only_looks=True)
    stores.check()
    began = datetime.now(UTC)
    wiring = find_wiring(stores, settings, began)
    yield from _check_database(settings, wiring)
    yield from _check_accounts(settings, stores)
    yield from _check_acl(stores)
    yield from _check_wiring(wiring)
    if wait_s:
        yield from _wait(stores, began, wait_s)


def _check_database(settings: Settings, wiring: Wiring) -> Iterator[Finding]:
    state = wiring.database
    disk = "" if state.free_bytes is None else f", {state.free_bytes // 10**9:,} GB of disk free"
    there = state.indexes - len(state.missing_indexes)
    text = (
        f"{settings.database_place}, version {state.version}, schema {state.schema}, "
        f"{there} of {state.indexes} indexes{disk}"
    )
    yield Finding("database", "ok", text)
    for problem in wiring.problems:
        yield Finding("server", "warning", problem)


def _check_accounts(settings: Settings, stores: Stores) -> Iterator[Finding]:
    accounts, access = stores.accounts, settings.access
    if token_server := token_server_of(settings):
        yield from _check_token_server(token_server)
    else:
        found = {account.name for account in accounts.find_all()}
        text = f"{len(found)}" if found else "none: add one with rns accounts add NAME"
        yield Finding("accounts", "ok" if found else "warning", text)
        if found and not found & set(access.administrators):
            names = ", ".join(access.administrators) or "nobody"
            text = f"no account is an administrator: access.administrators names {names}"
            yield Finding("accounts", "warning", text)
    if access.anonymous and accounts.find_anonymous() is None:
        text = 'access.anonymous has no effect: no account "" without password'
        yield Finding("anonymous", "warning", text)
    yield from _check_first_password(settings)
    for line in accounts.find_problems():
        yield Finding("htpasswd" if accounts.htpasswd else "account", "warning", line)


def _check_first_password(settings: Settings) -> Iterator[Finding]:
    file = os.path.join(settings.mongodb.data_dir, PASSWORD_FILE)
    if os.path.exists(file):  # not of a Path, which raises where it may not look
        name = first_account_name(settings)
        text = (
            f"{os.path.abspath(file)} has the first password of {name} for who can read it: change "
            f"it with rns accounts passwd {name}, if nobody did, and remove the file"
        )
        yield Finding("accounts", "warning", text)


def _check_token_server(token_server: TokenServer) -> Iterator[Finding]:
    if token_server.is_plain:
        text = f"passwords go there unencrypted: {token_server.url}"
        yield Finding("token server", "warning", text)
    try:
        token_server.check()
    except AccountsUnavailable as error:
        yield Finding("token server", "error", str(error))
    else:
        yield Finding("token server", "ok", "it knows the accounts, and refuses a wrong password")


def _check_acl(stores: Stores) -> Iterator[Finding]:
    documents = stores.accounts.find_acl_documents()
    if stores.accounts.acl_file and stores.accounts.acl_file.problem:  # known once it is read
        raise AppError(stores.accounts.acl_file.problem)
    acl = stores.accounts.parse(documents)
    for problem in acl.problems:
        yield Finding("ACL entry", "warning", f"{problem.where}: {problem.message}")
    for document in documents:
        actions = document.get("actions")
        unknown = [a for a in actions if a not in ACTIONS] if isinstance(actions, list) else []
        if unknown:
            text = f"seq {document.get('seq')}: no registry asks for the action {unknown[0]!r}"
            yield Finding("ACL entry", "warning", text)
    for line in order_lines(find_disorder(acl)):
        yield Finding("ACL order", "warning", line)
    if not acl.is_valid:
        text = "the ACL has an invalid entry, so only administrators see anything"
        yield Finding("ACL", "error", text)


def _check_wiring(wiring: Wiring) -> Iterator[Finding]:
    for registry in wiring.registries:
        if registry.last:
            event = registry.last
            when = f"{event.timestamp:%Y-%m-%d %H:%M:%S} UTC"
            text = f"{registry.name}: last a {event.action} of {event.repository}, {when}"
            yield Finding("registry", "ok", text)
        for problem in registry.problems:
            yield Finding("registry", "warning", f"{registry.name}: {problem}")
    for refusal in wiring.refusals:
        when = f"{refusal.at:%Y-%m-%d %H:%M} UTC"
        where = refusal.address or "a Unix socket"
        yield Finding("refused", "warning", f"{where}, last {when}: {refusal.text}")
    if wiring.rejected:
        text = f"{wiring.rejected:,} events; see rns events rejected"
        yield Finding("not understood", "warning", text)


def _wait(stores: Stores, since: datetime, wait_s: int) -> Iterator[Finding]:
    yield Finding("test", "ok", f"waiting {wait_s} s for a push or pull")
    until = time.monotonic() + wait_s
    since = since.replace(microsecond=since.microsecond // 1000 * 1000)
    while not (arrival := find_arrival(stores, since)).is_anything:
        if time.monotonic() >= until:
            yield Finding("test", "error", "nothing came; docs/operations.md says what to look at")
            return
        time.sleep(LOOK_S)
    for event in arrival.events:
        name = f"{event.repository}:{event.tag}" if event.tag else event.repository
        text = f"{event.registry}: {event.action} of {name} by {event.actor or 'anonymous'}"
        yield Finding("test", "ok", text)
    for refusal in arrival.refusals:
        where = refusal.address or "a Unix socket"
        yield Finding("test", "error", f"refused, from {where}: {refusal.text}")
    for reason in arrival.rejected:
        yield Finding("test", "warning", f"not understood: {reason}")
