"""`rns tokens`: API tokens, of any account."""

from __future__ import annotations

from datetime import timedelta

import click
import msgspec

from app.cli.shared import as_json, open_stores, print_rows
from app.errors import InvalidQuery
from app.rules.tokens import DEFAULT_LIFETIME, MAX_LIFETIME
from app.settings import Settings
from app.store.sign_ins import now


@click.group()
def tokens() -> None:
    """API tokens: what scripts read with, instead of a password."""


@tokens.command("add")
@click.option("--account", required=True, help="Whose rights it has.")
@click.option("--name", required=True, help="What it is for.")
@click.option(
    "--days",
    type=click.IntRange(1, MAX_LIFETIME.days),
    default=DEFAULT_LIFETIME.days,
    show_default=True,
    help="Until it ends.",
)
@as_json
@click.pass_obj
def tokens_add(settings: Settings, account: str, name: str, days: int, as_json: bool) -> None:
    """Make a token and print it: it is kept nowhere, and never shown again."""
    stores, moment = open_stores(settings), now()
    if stores.accounts.find(account) is None:
        raise InvalidQuery(f"there is no account {account}")
    token = stores.tokens.add(account, name, timedelta(days=days), moment)
    if not as_json:
        print(token)
        return
    [made] = [row for row in stores.tokens.find_all(account) if row.name == name]
    print(msgspec.json.encode({**msgspec.structs.asdict(made), "token": token}).decode())


@tokens.command("list")
@click.option("--account", default="", help="Of one account alone.")
@as_json
@click.pass_obj
def tokens_list(settings: Settings, account: str, as_json: bool) -> None:
    """List the tokens, by account and name."""
    stores, rows, cursor = open_stores(settings), [], None
    while True:
        page = stores.tokens.find_page(account, cursor=cursor, limit=500)
        rows += [msgspec.structs.asdict(token) for token in page.items]
        cursor = page.next
        if cursor is None:
            break
    print_rows(rows, ["account", "name", "created_at", "expires_at", "used_at"], as_json)


@tokens.command("remove")
@click.option("--account", required=True)
@click.option("--name", help="Of one token.")
@click.option("--all", "is_all", is_flag=True, help="Every token of the account.")
@click.pass_obj
def tokens_remove(settings: Settings, account: str, name: str | None, is_all: bool) -> None:
    """Revoke a token, or all tokens of an account."""
    if (name is None) != is_all:
        raise click.UsageError("give one of --name and --all")
    stores = open_stores(settings)
    if name is None:
        print(f"removed {stores.tokens.remove_all(account)}")
        return
    if not stores.tokens.remove(account, name):
        raise InvalidQuery(f"there is no token {name} of {account}")
    print(f"removed {name}")
