"""docker_auth's own collections: accounts `{username, password, labels}` and ACL entries.

The documents stay in docker_auth's shape, so both programs work on the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import bcrypt
import msgspec
from pymongo.collection import Collection

from app.access import Account, Acl, parse_acl
from app.errors import InvalidQuery
from app.store.errors import translate_errors
from app.store.paging import Document

BCRYPT_ROUNDS = 10  # docker_auth's own example hashes have 10 as well
MAX_PASSWORD_BYTES = 72  # what bcrypt reads; bcrypt 5 refuses more

# Of a random password that nobody kept, at BCRYPT_ROUNDS: compared with when the account is
# unknown, so that the answer takes as long.
_DUMMY_HASH = b"$2b$10$dDi1YZEetJ/0cLVc.BCFJORUAMoDcELzhY8nRv75GV8AP5aaToIgK"


class SignedIn(msgspec.Struct, frozen=True):
    """An account whose password was right; `password_hash` is what a session is bound to."""

    account: Account
    password_hash: bytes


@translate_errors
class AccountStore:
    """Accounts and ACL entries."""

    def __init__(self, accounts: Collection[Document], acl: Collection[Document]) -> None:
        self._accounts = accounts
        self._acl = acl

    # Accounts

    def sign_in(self, name: str, password: str) -> SignedIn | None:
        """The account, if it exists and the password is right; takes the same time if not.

        An account without a password never signs in, though docker_auth would let it.
        """
        found = self.find(name)
        secret = password.encode("utf-8", "surrogatepass")
        too_long = len(secret) > MAX_PASSWORD_BYTES
        matches = _matches(
            secret[:MAX_PASSWORD_BYTES], found.password_hash if found else _DUMMY_HASH
        )
        return found if found and matches and not too_long else None

    def find(self, name: str) -> SignedIn | None:
        """An account that has a password, or None."""
        if not name:
            return None
        document = self._accounts.find_one({"username": name})
        stored = document.get("password") if document else None
        if document is None or not isinstance(stored, str) or not stored:
            return None
        account = Account.from_document(document)
        return SignedIn(account, stored.encode())

    def has_any(self) -> bool:
        """Whether there is any account at all."""
        return self._accounts.find_one({}, {"_id": 1}) is not None

    def find_all(self) -> list[Account]:
        """Every account, by name."""
        documents = self._accounts.find({"username": {"$type": "string"}}).sort("username", 1)
        return [Account.from_document(document) for document in documents]

    def add(self, name: str, password: str, labels: Mapping[str, Sequence[str]]) -> bool:
        """Create an account; False when the name is taken."""
        check_account_name(name)
        hashed = hash_password(password)
        document: Document = {"username": name, "password": hashed}
        if labels:
            document["labels"] = {label: list(values) for label, values in labels.items()}
        result = self._accounts.update_one(
            {"username": name}, {"$setOnInsert": document}, upsert=True
        )
        return result.upserted_id is not None

    def set_password(self, name: str, password: str) -> bool:
        """Change a password; False when there is no such account."""
        change = {"$set": {"password": hash_password(password)}}
        return self._accounts.update_one({"username": name}, change).matched_count == 1

    def remove(self, name: str) -> bool:
        """Delete an account; False when there is none."""
        return self._accounts.delete_many({"username": name}).deleted_count > 0

    # ACL

    def load_acl(self) -> Acl:
        """The whole ACL, parsed."""
        return parse_acl(self._acl.find())

    def find_acl_documents(self) -> list[Document]:
        """The ACL entries as docker_auth stores them, by `seq`."""
        return list(self._acl.find({}, {"_id": 0}).sort("seq", 1))

    def add_acl_entry(self, entry: Mapping[str, Any]) -> bool:
        """Add an entry; False when its `seq` is taken (the order would be undefined)."""
        result = self._acl.update_one(
            {"seq": entry["seq"]}, {"$setOnInsert": dict(entry)}, upsert=True
        )
        return result.upserted_id is not None

    def remove_acl_entry(self, seq: int) -> bool:
        """Delete the entry with this `seq`; False when there is none."""
        return self._acl.delete_many({"seq": seq}).deleted_count > 0


def check_account_name(name: str) -> None:
    """Raise InvalidQuery unless `name` can be an account: printable, without colon or blank ends.

    HTTP Basic ends the user name at the first colon (RFC 7617).
    """
    if not name or len(name) > 255 or not name.isprintable() or ":" in name or name != name.strip():
        raise InvalidQuery("account name: 1 to 255 printable characters without a colon")


def hash_password(password: str) -> str:
    """A bcrypt hash that docker_auth reads.

    Raises:
        InvalidQuery: empty, or more than the 72 bytes that bcrypt looks at.
    """
    secret = password.encode()
    if not secret or b"\0" in secret or len(secret) > MAX_PASSWORD_BYTES:
        raise InvalidQuery("password: 1 to 72 bytes, as bcrypt reads no more")
    return bcrypt.hashpw(secret, bcrypt.gensalt(BCRYPT_ROUNDS)).decode()


def _matches(secret: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(secret, hashed)
    except ValueError:
        return False  # not a bcrypt hash
