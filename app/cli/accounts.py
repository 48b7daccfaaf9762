"""`rns accounts` and `rns acl`: who may see what."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec

from app.analysis.explain import explain_access, parse_entry
from app.cli.shared import as_json, open_stores, print_rows
from app.errors import InvalidQuery
from app.rules.access import Disorder, Explanation, by_seq, parse_acl
from app.settings import Settings
from app.store import Stores
from app.store.accounts import plain
from app.store.events import address_key


@click.group()
def accounts() -> None:
    """Accounts, in docker_auth's collection."""


def end_all(stores: Stores, name: str) -> None:
    """End the API tokens and the sessions of a name that is nobody's, or somebody else's next."""
    stores.tokens.remove_all(name)
    stores.sign_ins.end_sessions(name, "rns accounts")


def _read_password(from_stdin: bool, name: str) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.UsageError("no terminal to ask for a password on; use --password-stdin")
    return str(click.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True))


def _parse_labels(labels: tuple[str, ...]) -> dict[str, list[str]]:
    parsed: dict[str, list[str]] = {}
    for label in labels:
        name, separator, value = label.partition("=")
        if not separator or not name or not value:
            raise click.UsageError(f"--label: expected name=value, got {label!r}")
        parsed.setdefault(name, []).append(value)
    return parsed


password_stdin = click.option("--password-stdin", is_flag=True, help="Read it from stdin.")


@accounts.command("add")
@click.argument("name")
@password_stdin
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.pass_obj
def accounts_add(
    settings: Settings, name: str, password_stdin: bool, labels: tuple[str, ...]
) -> None:
    """Create an account; "" is docker_auth's anonymous one, which has no password."""
    parsed = _parse_labels(labels)
    if not name and password_stdin:
        raise click.UsageError("the anonymous account has no password")
    stores = open_stores(settings)
    if not name:
        if not stores.accounts.add_anonymous(parsed):
            raise InvalidQuery("the anonymous account exists")
        print("added the anonymous account; what it may see is said by acl and access.anonymous")
        return
    if not stores.accounts.exists(name):
        end_all(stores, name)  # of somebody who had the name before
    if not stores.accounts.add(name, _read_password(password_stdin, name), parsed):
        raise InvalidQuery(f"the account {name} exists; change it with rns accounts passwd {name}")
    print(f"added {name}")


@accounts.command("passwd")
@click.argument("name")
@password_stdin
@click.pass_obj
def accounts_passwd(settings: Settings, name: str, password_stdin: bool) -> None:
    """Change a password; its sessions end."""
    stores = open_stores(settings)
    if not stores.accounts.set_password(name, _read_password(password_stdin, name)):
        raise InvalidQuery(f"there is no account {name}")
    stores.sign_ins.end_sessions(name, "rns accounts passwd")
    print(f"changed {name}")


@accounts.command("remove")
@click.argument("name")
@click.pass_obj
def accounts_remove(settings: Settings, name: str) -> None:
    """Delete an account; its sessions and API tokens end. The last administrator stays."""
    stores = open_stores(settings)
    administrators = [a for a in settings.access.administrators if stores.accounts.exists(a)]
    if administrators == [name]:
        raise InvalidQuery(
            f"{name} is the last administrator: add another of access.administrators first, or "
            "name another there"
        )
    if not stores.accounts.remove(name):
        raise InvalidQuery(f"there is no account {name}")
    end_all(stores, name)
    print(f"removed {name}")


@accounts.command("list")
@as_json
@click.pass_obj
def accounts_list(settings: Settings, as_json: bool) -> None:
    """List the accounts and their labels."""
    stores = open_stores(settings)
    if stores.accounts.place == "token_url":
        raise InvalidQuery("the accounts are those of docker_auth.token_url, which lists none")
    rows = [
        {"name": account.name, "labels": dict(account.labels)}
        for account in stores.accounts.find_all()
    ]
    print_rows(rows, ["name", "labels"], as_json)


@click.group()
def acl() -> None:
    """Access control entries, in docker_auth's collection."""


ACTIONS = ("pull", "push", "delete", "*")  # that registries ask docker_auth for

_SEQ = click.IntRange(-(2**53), 2**53)  # what JSON and MongoDB both keep


@acl.command("add")
@click.option("--seq", type=_SEQ, required=True, help="Its position.")
@click.option("--account", help="Pattern for the account.")
@click.option("--name", help="Pattern for the repository.")
@click.option("--ip", help="Address or CIDR of the client.")
@click.option("--service", help="Pattern for the service.")
@click.option("--label", "labels", multiple=True, metavar="NAME=PATTERN")
@click.option("--actions", required=True, help="As pull,push; * for all; empty to deny.")
@click.option("--comment", default="")
@click.pass_obj
def acl_add(
    settings: Settings,
    /,
    seq: int,
    actions: str,
    comment: str,
    labels: tuple[str, ...],
    **match: str | None,
) -> None:
    """Add an entry; the first entry by seq that matches decides."""
    stores = open_stores(settings)
    conditions: dict[str, Any] = {key: value for key, value in match.items() if value is not None}
    if labels:
        parsed = _parse_labels(labels)
        for name, patterns in parsed.items():
            if len(patterns) > 1:
                raise click.UsageError(f"--label: {name} is given twice; an entry has one pattern")
        conditions["labels"] = {name: pattern for name, [pattern] in parsed.items()}
    entry: dict[str, Any] = {
        "seq": seq,
        "match": conditions,
        "actions": _parse_actions(actions),
    }
    if comment:
        entry["comment"] = comment
    if problems := parse_acl([entry]).problems:
        raise InvalidQuery(f"entry: {problems[0].message}")
    if not stores.accounts.add_acl_entry(entry):
        raise InvalidQuery(f"--seq {seq} is taken; see rns acl list")
    print(f"added {seq}")


def _parse_actions(text: str) -> list[str]:
    actions = [action.strip() for action in text.split(",") if action.strip()]
    for action in actions:
        if action not in ACTIONS:
            raise click.UsageError(f"--actions: {action!r} is none of {', '.join(ACTIONS)}")
    return actions


@acl.command("list")
@as_json
@click.pass_obj
def acl_list(settings: Settings, as_json: bool) -> None:
    """List the entries in the order in which they are tried."""
    stores = open_stores(settings)
    rows = [plain(document) for document in by_seq(stores.accounts.find_acl_documents())]
    print_rows(rows, ["seq", "match", "actions", "comment"], as_json)


@acl.command("remove")
@click.option("--seq", type=_SEQ)
@click.option("--number", type=click.IntRange(1), help="As rns check counts one without seq.")
@click.pass_obj
def acl_remove(settings: Settings, seq: int | None, number: int | None) -> None:
    """Delete the entry at a position."""
    if (seq is None) == (number is None):
        raise click.UsageError("give one of --seq and --number")
    stores = open_stores(settings)
    if seq is None:
        assert number
        if not stores.accounts.remove_acl_entry_at(number - 1):
            raise InvalidQuery(f"there is no entry without a readable seq at number {number}")
        print(f"removed number {number}")
        return
    removed = stores.accounts.remove_acl_entry(seq)
    if not removed:
        raise InvalidQuery(f"there is no entry with seq {seq}")
    print(f"removed {seq}" if removed == 1 else f"removed {seq}: {removed} entries had it")


@acl.command("explain")
@click.argument("account")
@click.argument("repository")
@click.option("--address", default="", help="The client's, for entries with ip.")
@click.option("--what-if", metavar="JSON", help="An entry that is not saved, to see its effect.")
@as_json
@click.pass_obj
def acl_explain(
    settings: Settings,
    account: str,
    repository: str,
    address: str,
    what_if: str | None,
    as_json: bool,
) -> None:
    """Say which entry decides whether ACCOUNT sees REPOSITORY; "" is the anonymous account."""
    entry = parse_entry(what_if) if what_if else None
    if address and address_key(address) is None:
        raise InvalidQuery(f"--address: {address} is no IP address")
    stores = open_stores(settings)
    answer = explain_access(stores, settings, account, repository, address=address, entry=entry)
    if as_json:
        print(msgspec.json.encode(answer).decode())
        return
    if not answer.is_known and account:
        print(f"There is no account {account}: explained as one without labels.")
    if not account and not settings.access.anonymous:
        print("Nobody sees anything here without signing in: access.anonymous is false.")
    _print_explanation(answer.explanation, answer.entries)
    for line in order_lines(answer.disorder):
        print(f"order: {line}")
    if answer.what_if:
        print("\nWith the entry that is not saved:")
        _print_explanation(answer.what_if.explanation, answer.what_if.entries)
        for word, number, names in (
            ("gains", answer.what_if.gained, answer.what_if.gained_names),
            ("loses", answer.what_if.lost, answer.what_if.lost_names),
        ):
            more = ", …" if number > len(names) else ""
            print(f"{account} {word} {number:,} repositories: {', '.join(names) or '-'}{more}")


def _print_explanation(explanation: Explanation, entries: Sequence[Mapping[str, Any]]) -> None:
    print(f"{'may pull' if explanation.allowed else 'may not pull'}: {explanation.reason}")
    if explanation.unsorted:
        print(
            f"docker_auth's code does not sort, and would answer otherwise: {explanation.unsorted}"
        )
    rows = []
    for step in explanation.steps:
        document = entries[step.index] if step.index < len(entries) else {}
        says = step.because or step.verdict
        if step.hidden_by is not None:
            says += f"; never decides: seq {step.hidden_by} matches all that it matches"
        rows.append(
            {
                "place": step.place,
                "seq": step.seq,
                "match": document.get("match"),
                "actions": document.get("actions"),
                "says": says,
            }
        )
    if rows:
        print_rows(rows, ["place", "seq", "match", "actions", "says"], as_json=False)
    for problem in explanation.problems:
        print(f"problem: {problem.where}: {problem.message}")


def order_lines(disorder: Sequence[Disorder]) -> list[str]:
    """What to say of entries that docker_auth's code, which does not sort, tries otherwise."""
    return [
        f"seq {pair.first} comes before seq {pair.second}, and is stored after it: docker_auth's"
        " code does not sort, and lets the latter decide where both match"
        for pair in disorder
    ]
