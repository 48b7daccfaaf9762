"""Who signed in, who failed to, and how long the next attempt has to wait.

One row for each sign-in, failed sign-in and sign-out: the audit, and at the same time what the
throttle counts and what ends a session. All workers share it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_network
from typing import Any

import msgspec
from pymongo.collection import Collection

from app.rules.addresses import parse_ip
from app.rules.events import position_at
from app.store.errors import translate_errors
from app.store.paging import (
    Count,
    Document,
    Page,
    all_of,
    between,
    chunks,
    count_newest,
    find_newest,
)

KEPT = timedelta(days=90)
FAMILIAR = timedelta(days=30)  # an address from which the account signed in

# Failed attempts within WINDOW after which more have to wait. Short, because whoever knows a
# colleague's name can fail on purpose; of an account as a whole only where it is not familiar.
WINDOW = timedelta(minutes=5)
MAX_OF_ACCOUNT_AND_ADDRESS = 20
MAX_OF_ADDRESS = 100
MAX_OF_ACCOUNT = 60

SIGNED_IN, REFUSED, SIGNED_OUT = "signed in", "refused", "signed out"
NEW_PASSWORD, NEW_TOKEN, REVOKED = "changed password", "made token", "revoked token"
OUTCOMES = (SIGNED_IN, REFUSED, SIGNED_OUT, NEW_PASSWORD, NEW_TOKEN, REVOKED)

FORM, BASIC, TOKEN, HEADER = "form", "basic", "token", "header"


class SignIn(msgspec.Struct, frozen=True):
    """One row of the audit; `account` is the name as it was given, whether it exists or not."""

    at: datetime
    account: str
    address: str
    means: str  # form, basic, header, or token and its name
    outcome: str
    user_agent: str


class Session(msgspec.Struct, frozen=True):
    """A sign-in by form that nobody signed out of; `id` is what the cookie names."""

    id: str
    at: datetime
    address: str
    user_agent: str


@translate_errors
class SignInStore:
    """Collection `sign_ins`, rows kept for 90 days."""

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent."""
        self._collection.create_index("at", expireAfterSeconds=int(KEPT.total_seconds()))
        for key in ("account", "source"):
            self._collection.create_index([(key, 1), ("outcome", 1), ("position", 1)])
        self._collection.create_index("position")
        self._collection.create_index("session", sparse=True)

    def find_wait(
        self, account: str | None, address: str, now: datetime, spelling: str = ""
    ) -> timedelta:
        """How long an attempt from this address has to wait; zero if it need not.

        `account` is None where the attempt names none, `spelling` how the account signs in where
        it is another name than failures are counted by.
        """
        source = _source(address)
        limits: list[tuple[Mapping[str, Any], int]] = [({"source": source}, MAX_OF_ADDRESS)]
        if account is not None:
            both = {"account": account, "source": source}
            limits.append((both, MAX_OF_ACCOUNT_AND_ADDRESS))
            if not self._is_familiar(spelling or account, source, now):
                limits.append(({"account": account}, MAX_OF_ACCOUNT))
        since = between(position_at(now - WINDOW), None)
        wait = timedelta()
        for who, limit in limits:
            query = {**who, "outcome": REFUSED, **since}
            rows = self._collection.find(query).sort("position", -1).skip(limit - 1).limit(1)
            for row in rows:
                wait = max(wait, row["at"] + WINDOW - now)
        return wait

    def _is_familiar(self, account: str, source: str, now: datetime) -> bool:
        since = between(position_at(now - FAMILIAR), None)
        query = {"account": account, "source": source, "outcome": SIGNED_IN, **since}
        return self._collection.find_one(query, {"_id": 1}) is not None

    def add(self, row: SignIn, session: str | None = None) -> None:
        """Record a row; `session` is the id that a sign-out ends.

        Sign-ins of one account from one address that are no form are one row a day: a script signs
        in with every request.
        """
        document = msgspec.structs.asdict(row) | {"source": _source(row.address)}
        key = secrets.token_hex(8)
        document["position"] = f"{position_at(row.at)}-{key}"
        if session:
            document["session"] = session
        # What a proxy says is no guess, so its refusals need not be counted.
        if (row.means != FORM and row.outcome == SIGNED_IN) or row.means == HEADER:
            what = f"{row.means} {row.outcome}"
            key = f"{row.at:%Y-%m-%d} {row.address} {what} {row.account}"
        self._collection.update_one({"_id": key}, {"$setOnInsert": document}, upsert=True)

    def is_ended(self, session: str) -> bool:
        """Whether this session was signed out of."""
        query = {"session": session, "outcome": SIGNED_OUT}
        return self._collection.find_one(query, {"_id": 1}) is not None

    def find_sessions(self, account: str, since: datetime) -> list[Session]:
        """The sessions begun since then that nobody signed out of, newest first.

        Some may be over by themselves: nobody tells when a browser is closed.
        """
        begun = between(position_at(since), None)
        query = {"account": account, "outcome": SIGNED_IN, **begun}
        rows = {row["session"]: row for row in self._collection.find(query) if "session" in row}
        for ids in chunks(list(rows)):
            for row in self._collection.find({"session": {"$in": ids}, "outcome": SIGNED_OUT}):
                rows.pop(row["session"], None)
        newest = sorted(rows.values(), key=lambda row: row["position"], reverse=True)
        return [Session(r["session"], r["at"], r["address"], r["user_agent"]) for r in newest]

    def end_sessions(self, account: str, by: str) -> None:
        """End what find_sessions finds, where a command changed the account; `by` names it."""
        moment = now()
        for row in self.find_sessions(account, moment - KEPT):
            self.add(SignIn(moment, account, "", FORM, SIGNED_OUT, by), row.id)

    def find_page(
        self, filters: Mapping[str, str], *, cursor: str | None = None, limit: int = 50
    ) -> Page[SignIn]:
        """The audit, newest first; `filters` are fields and their exact values."""
        found = find_newest(
            self._collection, [dict(filters)], lower=None, upper=cursor, limit=limit + 1
        )
        items = [_row(document) for document in found[:limit]]
        return Page(items, found[limit - 1]["position"] if len(found) > limit else None)

    def count(self, filters: Mapping[str, str], *, cap: int) -> Count:
        """How many rows there are, exact up to `cap`."""
        return count_newest(self._collection, [all_of(filters)], lower=None, upper=None, cap=cap)


def _row(document: Document) -> SignIn:
    return SignIn(**{name: document[name] for name in SignIn.__struct_fields__})


def _source(address: str) -> str:
    """What counts as one address: of IPv6 a /64, which is what one customer gets."""
    parsed = parse_ip(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, 64), strict=False))
    return str(parsed or "")


def now() -> datetime:
    """The present time, in the milliseconds that MongoDB keeps."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
