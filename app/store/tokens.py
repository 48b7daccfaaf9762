"""API tokens: who may read through the API without a password, until when."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from pymongo.collection import Collection

from app.errors import InvalidQuery
from app.rules.tokens import MAX_LIFETIME, MAX_NAME_LENGTH, hash_token, is_token_name, make_token
from app.store.errors import translate_errors
from app.store.paging import Document, Page

MAX_OF_ACCOUNT = 50
KEPT = timedelta(days=30)  # after its end, for its owner to see that it is over
USED_AGAIN = timedelta(minutes=1)  # how often a use is written down


class ApiToken(msgspec.Struct, frozen=True):
    """A token without what is secret; the name is unique for the account."""

    account: str
    name: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None  # to the minute
    used_from: str = ""  # address

    def is_over(self, now: datetime) -> bool:
        """Whether it opens nothing any more."""
        return self.expires_at <= now


@translate_errors
class TokenStore:
    """Collection `api_tokens`: `_id` is account and name; `hash` is SHA-256 of the token."""

    def __init__(self, collection: Collection[Document], longest: timedelta = MAX_LIFETIME) -> None:
        self._collection = collection
        self.longest = longest  # that a token may last

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent."""
        self._collection.create_index("hash")
        self._collection.create_index("account")
        seconds = int(KEPT.total_seconds())
        self._collection.create_index("expires_at", expireAfterSeconds=seconds)

    def add(self, account: str, name: str, lifetime: timedelta, now: datetime) -> str:
        """Make a token; what is returned is kept nowhere.

        Raises:
            InvalidQuery: the name is taken or none, the time too long, or there are too many.
        """
        if not is_token_name(name):
            raise InvalidQuery(f"name: 1 to {MAX_NAME_LENGTH} printable characters without a colon")
        if not timedelta() < lifetime <= self.longest:
            raise InvalidQuery(f"days: expected 1 to {self.longest.days}")
        if len(self.find_all(account)) >= MAX_OF_ACCOUNT:
            raise InvalidQuery(f"name: {account} has {MAX_OF_ACCOUNT} tokens; revoke one first")
        token = make_token()
        document = msgspec.structs.asdict(ApiToken(account, name, now, now + lifetime))
        document["hash"] = hash_token(token)
        result = self._collection.update_one(
            {"_id": _key(account, name)}, {"$setOnInsert": document}, upsert=True
        )
        if result.upserted_id is None:
            raise InvalidQuery(f"name: {account} has a token {name}; revoke it, or take another")
        return token

    def find(self, token: str, now: datetime) -> ApiToken | None:
        """What this token is, unless it was revoked or is over."""
        document = self._collection.find_one({"hash": hash_token(token)})
        found = _token(document) if document else None
        is_good = found and not found.is_over(now) and now - found.created_at < self.longest
        return found if is_good else None

    def note_use(self, token: ApiToken, address: str, now: datetime) -> bool:
        """Write down that it was used; returns False where that was done within the minute."""
        if token.used_at and now - token.used_at < USED_AGAIN:
            return False
        found = {"_id": _key(token.account, token.name), "used_at": token.used_at}
        change = {"$set": {"used_at": now, "used_from": address}}
        return self._collection.update_one(found, change).matched_count == 1

    def find_all(self, account: str) -> list[ApiToken]:
        """The tokens of an account, by name."""
        found = map(_token, self._collection.find({"account": account}))
        return sorted(found, key=lambda token: token.name)

    def find_page(
        self, account: str = "", *, cursor: str | None = None, limit: int = 50
    ) -> Page[ApiToken]:
        """The tokens of everybody, or of one account, by account and name."""
        query: Document = {"account": account} if account else {}
        if cursor is not None:
            query["_id"] = {"$gt": cursor}
        found = list(self._collection.find(query).sort("_id", 1).limit(limit + 1))
        more = found[limit - 1]["_id"] if len(found) > limit else None
        return Page([_token(document) for document in found[:limit]], more)

    def remove(self, account: str, name: str) -> bool:
        """Revoke a token; False when there is none."""
        return self._collection.delete_one({"_id": _key(account, name)}).deleted_count == 1

    def remove_all(self, account: str) -> int:
        """Revoke every token of an account; returns their number."""
        return self._collection.delete_many({"account": account}).deleted_count


def _key(account: str, name: str) -> str:
    return f"{account}:{name}"


def _token(document: Document) -> ApiToken:
    return ApiToken(**{name: document[name] for name in ApiToken.__struct_fields__})
