"""What is seen to before the first event: indexes, schema, an account, who knows passwords."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from app.notifications.listening import note_silence
from app.registry.token_server import TokenServer
from app.server.upgrade import bring_forward
from app.settings import Settings
from app.store import Stores

logger = logging.getLogger(__name__)
PASSWORD_FILE = "first_password"  # noqa: S105 - its name


def prepare(stores: Stores, settings: Settings, ended: Event | None = None) -> bool:
    """Create indexes, bring the database forward, and add `admin` where it has no account.

    A database that is away now is no reason not to start: POST /events answers 503 until it is
    back, and the registry keeps its events. Returns whether all is done: not if `ended` was set
    while the database was brought forward.

    Raises:
        StartupError: the database is newer than this program. Nothing was written.
        StoreUnavailable: nothing is lost by trying again.
    """
    stores.schema.note()
    names = [registry.name for registry in settings.registries]
    note_silence(stores, names, datetime.now(UTC))
    stores.ensure_indexes()
    if not bring_forward(stores, settings, ended):
        return False
    stores.schema.want_projectors(settings.notifications.projectors)
    there = settings.docker_auth
    if there.uri or there.htpasswd or there.token_url or stores.accounts.has_any():
        return True
    # Several processes may get here at once; whoever does not hold the lease leaves it to who does.
    lease, owner = "first account", secrets.token_hex(8)
    if not stores.leases.take(lease, owner, datetime.now(UTC)):
        return True
    try:
        if not stores.accounts.has_any():
            _add_first_account(stores, settings)
    finally:
        stores.leases.give_back(lease, owner)
    return True


def first_account_name(settings: Settings) -> str:
    """The account that a server adds where there is none."""
    return next(iter(settings.access.administrators), "admin")


def _add_first_account(stores: Stores, settings: Settings) -> None:
    name = first_account_name(settings)
    password = secrets.token_urlsafe(12)
    if sys.stdout.isatty():
        if stores.accounts.add(name, password, {}):
            print(
                f"\n  First account: {name}\n  Password:      {password}\n"
                f"  Shown once; change it with: rns accounts passwd {name}\n",
                flush=True,
            )
        return
    # What is no terminal is kept, as the log of a container or a service is.
    file = Path(settings.mongodb.data_dir) / PASSWORD_FILE
    try:
        _write_private(file, f"{password}\n")
    except OSError as error:
        logger.error(
            "there is no account, and no password can be kept in %s: %s; rns accounts add %s",
            file,
            error.strerror,
            name,
        )
        return
    if stores.accounts.add(name, password, {}):
        logger.warning(
            "first account: %s; its password is in %s: sign in, change it with rns accounts passwd"
            " %s, and remove the file",
            name,
            file.absolute(),
            name,
        )
    else:
        file.unlink()


def _write_private(file: Path, text: str) -> None:
    """Write a new file that nobody but its owner can read at any time."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)


def token_server_of(settings: Settings) -> TokenServer | None:
    """docker_auth's token server, where it is asked for passwords."""
    there = settings.docker_auth
    return TokenServer(there.token_url, there.service, there.ca_file) if there.token_url else None
