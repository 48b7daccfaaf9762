"""`rns accounts import` and `rns acl import`: what docker_auth's own configuration file says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from app.cli.accounts import end_all
from app.cli.shared import open_stores
from app.errors import InvalidQuery
from app.rules.access import find_hidden, parse_acl, place_entries
from app.settings import Settings
from app.store.accounts import AccountStore
from app.store.auth_config import User, read_acl, read_users

Document = dict[str, Any]
existing_file = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
dry_run = click.option("--dry-run", is_flag=True, help="Say what would be added, and add nothing.")


@click.command("import")
@existing_file
@dry_run
@click.pass_obj
def accounts_import(settings: Settings, file: Path, dry_run: bool) -> None:
    """Add the `users` of docker_auth's FILE, with their hashes; those that are there stay."""
    users = read_users(file)
    stores = open_stores(settings)
    store = stores.accounts
    store.refuse_where_elsewhere()  # also where nothing is to be added
    refused = 0
    for user in users:
        if not user.name:
            print('left out: the anonymous account; rns accounts add "" makes it')
        elif user.problem:
            refused += 1
            print(f"refused {user.name!r}: {user.problem}")
        elif not store.exists(user.name):
            if not dry_run:
                end_all(stores, user.name)  # of somebody who had the name before
                store.add_hashed(user.name, user.password_hash, user.labels)
            print(f"{'would add' if dry_run else 'added'} {user.name}")
        elif _is_same(store, user):
            print(f"left {user.name}: it is there already")
        else:
            print(f"left {user.name}: it is there with another password or other labels")
    if refused:
        raise InvalidQuery(f"{file}: {refused} of {len(users)} accounts are refused")


def _is_same(store: AccountStore, user: User) -> bool:
    found = store.find(user.name)
    if found is None or found.bound_to != user.password_hash.encode():
        return False
    return {label: list(values) for label, values in found.account.labels.items()} == user.labels


@click.command("import")
@existing_file
@dry_run
@click.pass_obj
def acl_import(settings: Settings, file: Path, dry_run: bool) -> None:
    """Add the `acl` of docker_auth's FILE in its order; entries that are there stay.

    FILE may also be only the list, or have one entry as JSON in each line. Either all entries can
    be, or nothing is added.
    """
    entries = read_acl(file)
    for entry in entries:
        if entry.problem:
            print(f"refused {entry.where}: {entry.problem}")
    if refused := sum(bool(entry.problem) for entry in entries):
        raise InvalidQuery(
            f"{file}: {refused} of {len(entries)} entries are refused, so nothing is added"
        )
    store = open_stores(settings).accounts
    stored = store.find_acl_documents()
    new = _find_new(file, stored, [entry.document for entry in entries])
    hidden = find_hidden(parse_acl([*stored, *new]))
    word = "would add" if dry_run else "added"
    for document in new:
        seq = document["seq"]
        if not dry_run and not store.add_acl_entry(document):
            raise InvalidQuery(f"seq {seq} was taken just now; run this again")
        says = msgspec.json.encode({key: document[key] for key in ("match", "actions")}).decode()
        never = f"; never decides: seq {hidden[seq]} matches all" if seq in hidden else ""
        print(f"{word} {seq}: {says}{never}")
    print(f"{word} {len(new)}, left {len(entries) - len(new)} that are there already")


def _find_new(
    file: Path, stored: Sequence[Document], given: Sequence[Document]
) -> Sequence[Document]:
    """The entries to be added, by `seq`: added in that order, none opens what a later one denies.

    Raises:
        InvalidQuery: they have no place.
    """
    there = parse_acl(stored)
    if not there.is_valid:
        raise InvalidQuery("the ACL has an entry that cannot be read; mend that first (rns check)")
    try:
        places = place_entries({entry.seq: stored[entry.index] for entry in there.entries}, given)
    except ValueError as error:
        raise InvalidQuery(f"{file}: {error}; nothing is added") from None
    new = {
        place.seq: {"seq": place.seq, **document}
        for place, document in zip(places, given, strict=True)
        if place.is_new
    }
    return [new[seq] for seq in sorted(new)]
