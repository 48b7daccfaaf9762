"""`rns serve`, `rns check` and `rns demo`."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime

import click
from tqdm import tqdm

from app import demo as demo_data
from app.cli.accounts import order_lines
from app.cli.shared import open_projector, open_stores
from app.errors import AppError
from app.migration import load_plans
from app.registry.token_server import TokenServer
from app.rules.access import find_disorder
from app.server import check_port
from app.server.preparation import token_server_of
from app.settings import Settings


@click.command()
@click.pass_obj
def serve(settings: Settings) -> None:
    """Run the server in the foreground; with `mongodb.uri: embedded` the database too."""
    check_port(settings.server.bind)
    if config := click.get_current_context().find_root().params["config"]:
        os.environ["RNS_CONFIG"] = str(config)
    program = [sys.executable, "-m", "gunicorn", "--config", "python:app.server.gunicorn_conf"]
    os.execv(sys.executable, [*program, "app:create_app()"])  # noqa: S606 - no shell wanted


@click.command()
@click.pass_obj
def check(settings: Settings) -> None:
    """Check configuration, database, accounts and ACL; exit 1 if the server cannot work.

    Entries and accounts that are ignored are listed; they are no error.
    """
    load_plans(settings)
    print("configuration  ok")
    stores = open_stores(settings)
    stores.check()
    print("database       ok")
    acl = stores.accounts.parse(stores.accounts.find_acl_documents())
    if token_server := token_server_of(settings):
        _check_token_server(token_server)
    else:
        accounts = len(stores.accounts.find_all())
        print(f"accounts       {accounts or 'none: add one with rns accounts add NAME'}")
    if settings.access.anonymous and stores.accounts.find_anonymous() is None:
        print('anonymous      access.anonymous has no effect: no account "" without password')
    source = "htpasswd" if stores.accounts.htpasswd else "account"
    for line in stores.accounts.find_problems():
        print(f"{source:<15}{line}")
    if stores.accounts.acl_file and stores.accounts.acl_file.problem:
        raise AppError(stores.accounts.acl_file.problem)
    for problem in acl.problems:
        print(f"ACL entry      {problem.where}: {problem.message}")
    for line in order_lines(find_disorder(acl)):
        print(f"ACL order      {line}")
    if not acl.is_valid:
        raise AppError("the ACL has an invalid entry, so only administrators see anything")


def _check_token_server(token_server: TokenServer) -> None:
    if token_server.is_plain:
        print(f"token server   passwords go there unencrypted: {token_server.url}")
    token_server.check()
    print("token server   ok: it knows the accounts, and refuses a wrong password")


@click.command()
@click.option("--remove", is_flag=True, help="Remove all demonstration data again.")
@click.pass_obj
def demo(settings: Settings, remove: bool) -> None:
    """Fill the pages with a hundred days of a made-up company; once more adds nothing."""
    stores = open_stores(settings)
    with open_projector(settings, stores) as projector:
        if remove:
            print(f"removed {demo_data.remove(stores, projector):,} events")
            return
        stored = 0
        with tqdm(unit="event", disable=None) as bar:
            for loaded in demo_data.load(stores, projector, datetime.now(UTC)):
                stored += loaded.stored
                bar.update(loaded.stored + loaded.duplicate)
    if stored:
        print(f"stored {stored:,} events of the registry `{demo_data.REGISTRY}`")
    else:
        print("the demonstration data is there already; --remove takes it away")
