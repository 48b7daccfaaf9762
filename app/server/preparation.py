"""What is seen to before the first event: indexes, an account, who knows the passwords."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from app.registry.token_server import TokenServer
from app.settings import Settings
from app.store import Stores


def prepare(stores: Stores, settings: Settings) -> None:
    """Create indexes, and `admin` with a random password where our own database has no account.

    A database that is away now is no reason not to start: POST /events answers 503 until it is
    back, and the registry keeps its events.

    Raises:
        StoreUnavailable: nothing is lost by trying again.
    """
    stores.ensure_indexes()
    there = settings.docker_auth
    if there.uri or there.htpasswd or there.token_url or stores.accounts.has_any():
        return
    # Several processes may get here at once; whoever does not hold the lease leaves it to who does.
    lease, owner = "first account", secrets.token_hex(8)
    if not stores.leases.take(lease, owner, datetime.now(UTC)):
        return
    try:
        if not stores.accounts.has_any():
            _add_first_account(stores, settings)
    finally:
        stores.leases.give_back(lease, owner)


def _add_first_account(stores: Stores, settings: Settings) -> None:
    name = next(iter(settings.access.administrators), "admin")
    password = secrets.token_urlsafe(12)
    if stores.accounts.add(name, password, {}):
        # To the terminal and not through the log, which is kept.
        print(
            f"\n  First account: {name}\n  Password:      {password}\n"
            f"  Shown once; change it with: rns accounts passwd {name}\n",
            flush=True,
        )


def token_server_of(settings: Settings) -> TokenServer | None:
    """docker_auth's token server, where it is asked for passwords."""
    there = settings.docker_auth
    return TokenServer(there.token_url, there.service, there.ca_file) if there.token_url else None
