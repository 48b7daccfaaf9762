"""docker_auth's own collections: accounts `{username, password, labels}` and ACL entries.

The documents stay in docker_auth's shape, so both programs work on the same ones.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import bcrypt
import msgspec
from pymongo.database import Database

from app.errors import InvalidQuery
from app.rules.access import (
    Account,
    Acl,
    Problem,
    check_account_name,
    find_odd_field,
    parse_acl,
    without_labels,
)
from app.settings import DockerAuth
from app.store.acl_file import AclFile
from app.store.errors import translate_errors
from app.store.htpasswd import Htpasswd
from app.store.paging import Document

logger = logging.getLogger(__name__)

BCRYPT_ROUNDS = 10  # docker_auth's own example hashes have 10 as well
MAX_PASSWORD_BYTES = 72  # what bcrypt reads; bcrypt 5 refuses more

ACL_LIFETIME_S = 5.0  # after which a changed ACL is seen
MAX_LOGGED = 20  # problems of an ACL

# Where accounts come from a file and there is no ACL, as the registry itself has it.
_EVERY_ACCOUNT = {"seq": 0, "match": {"account": "/./"}, "actions": ["*"]}


class SignedIn(msgspec.Struct, frozen=True):
    """An account that may sign in; `bound_to` is what its sessions are bound to.

    That is the password's hash, so a new password ends them; where docker_auth's token server
    knows the passwords and we do not, it is that server.
    """

    account: Account
    bound_to: bytes


@translate_errors
class AccountStore:
    """Accounts and ACL entries."""

    def __init__(self, database: Database[Document], there: DockerAuth) -> None:
        """Accounts and entries where `there` says.

        Those of files can only be read. Whom a token server knows is not known here.
        """
        self._accounts = database[there.accounts]
        self._acl = database[there.acl]
        self.htpasswd = Htpasswd(Path(there.htpasswd)) if there.htpasswd else None
        self.acl_file = AclFile(Path(there.acl_file)) if there.acl_file else None
        self.token_url = there.token_url
        self._lock = threading.Lock()
        self._documents: list[Document] | None = None
        self._problem = ""
        self._parsed = Acl((), (), True)
        self._logged: tuple[Problem, ...] = ()
        self._read_at = 0.0

    # Accounts

    @property
    def place(self) -> Literal["collection", "htpasswd", "token_url"]:
        """Where the accounts are."""
        if self.token_url:
            return "token_url"
        return "htpasswd" if self.htpasswd else "collection"

    def sign_in(self, name: str, password: str) -> SignedIn | None:
        """The account, if it exists and the password is right; takes the same time if not.

        An account without a password never signs in, though docker_auth would let it; nor does
        here one of a token server, which has to be asked.
        """
        found = self.find(name)
        hashed = found.bound_to if found else _dummy_hash(self._usual_rounds())
        secret = password.encode("utf-8", "surrogatepass")
        too_long = len(secret) > MAX_PASSWORD_BYTES
        matches = _matches(secret[:MAX_PASSWORD_BYTES], hashed)
        return found if found and matches and not too_long else None

    def _usual_rounds(self) -> int:
        """The cost of the hash of some account, so that an unknown one takes as long."""
        if self.htpasswd:
            stored = next(iter(self.htpasswd.find_all().values()), "")
        else:
            document = self._accounts.find_one({"password": {"$gt": "$2"}}, {"password": 1})
            stored = str(document["password"]) if document else ""  # a list is found, too
        rounds = stored[4:6]
        return int(rounds) if rounds.isdecimal() and 4 <= int(rounds) <= 16 else BCRYPT_ROUNDS

    def find(self, name: str) -> SignedIn | None:
        """An account that has a password and labels that docker_auth can read, or None.

        Any name where a token server knows the accounts.
        """
        if not name:
            return None
        if self.token_url:
            return SignedIn(Account(name, {}), self.token_url.encode())
        if self.htpasswd:
            hashed = self.htpasswd.find_all().get(name)
            return SignedIn(Account(name, {}), hashed.encode()) if hashed else None
        document = self._accounts.find_one({"username": name})
        stored = document.get("password") if document else None
        if document is None or not isinstance(stored, str) or not stored:
            return None
        if find_odd_field(document):
            return None
        account = Account.from_document(document)
        return SignedIn(account, stored.encode())

    def exists(self, name: str) -> bool:
        """Whether the name is taken, also by an account that cannot sign in."""
        if self.htpasswd:
            return name in self.htpasswd.find_all()
        return self._accounts.find_one({"username": name}, {"_id": 1}) is not None

    def find_anonymous(self) -> Account | None:
        """The account "" of whoever does not sign in, or None.

        As docker_auth has it: it exists if there is a document for it, and is let in without a
        password, or with that of the empty one; and not with labels that it cannot read.
        """
        is_known = self.place == "collection"
        document = self._accounts.find_one({"username": ""}) if is_known else None
        if document is None or find_odd_field(document):
            return None
        stored = document.get("password")
        is_open = stored is None or _is_of_nothing(stored)
        return Account.from_document(document) if is_open else None

    def has_any(self) -> bool:
        """Whether there is any account at all."""
        if self.token_url:
            return True
        if self.htpasswd:
            return bool(self.htpasswd.find_all())
        return self._accounts.find_one({}, {"_id": 1}) is not None

    def find_all(self) -> list[Account]:
        """Every account, by name; none where a token server knows them."""
        if self.token_url:
            return []
        if self.htpasswd:
            return [Account(name, {}) for name in sorted(self.htpasswd.find_all())]
        documents = self._accounts.find({"username": {"$type": "string"}}).sort("username", 1)
        return [
            Account.from_document(document)
            for document in documents
            if isinstance(document["username"], str)  # a list of strings is found, too
        ]

    def find_problems(self) -> list[str]:
        """Why accounts cannot sign in, a line each, or lines of the file that are no accounts."""
        if self.htpasswd:
            self.htpasswd.find_all()
            return self.htpasswd.problems
        if self.token_url:
            return []
        found = []
        for document in self._accounts.find({"username": {"$gt": ""}}).sort("username", 1):
            name, stored = document["username"], document.get("password")
            if odd := find_odd_field(document):
                found.append(f"{name}: {odd}, so it cannot sign in")
            elif not isinstance(stored, str) or not stored:
                found.append(f"{name}: has no password, and cannot sign in")
        return found

    def add(self, name: str, password: str, labels: Mapping[str, Sequence[str]]) -> bool:
        """Create an account; False when the name is taken."""
        return self.add_hashed(name, hash_password(password), labels)

    def add_hashed(self, name: str, hashed: str, labels: Mapping[str, Sequence[str]]) -> bool:
        """Create an account that has a bcrypt hash already; False when the name is taken."""
        self.refuse_where_elsewhere()
        check_account_name(name)
        return self._add({"username": name, "password": hashed}, labels)

    def add_anonymous(self, labels: Mapping[str, Sequence[str]]) -> bool:
        """Create the account "" of whoever does not sign in; False when it is there."""
        self.refuse_where_elsewhere()
        return self._add({"username": ""}, labels)

    def _add(self, document: Document, labels: Mapping[str, Sequence[str]]) -> bool:
        if labels:
            document["labels"] = {label: list(values) for label, values in labels.items()}
        result = self._accounts.update_one(
            {"username": document["username"]}, {"$setOnInsert": document}, upsert=True
        )
        return result.upserted_id is not None

    def set_password(self, name: str, password: str) -> bool:
        """Change a password; False when there is no such account."""
        self.refuse_where_elsewhere()
        change = {"$set": {"password": hash_password(password)}}
        return self._accounts.update_one({"username": name}, change).matched_count == 1

    def remove(self, name: str) -> bool:
        """Delete an account; False when there is none."""
        self.refuse_where_elsewhere()
        return self._accounts.delete_many({"username": name}).deleted_count > 0

    # ACL

    def load_acl(self) -> Acl:
        """The whole ACL, parsed; at most ACL_LIFETIME_S old, and the same object while it is."""
        with self._lock:
            if self._documents is None or time.monotonic() - self._read_at > ACL_LIFETIME_S:
                documents = self.find_acl_documents()
                problem = self.acl_file.problem if self.acl_file else ""
                if (documents, problem) != (self._documents, self._problem):
                    self._documents, self._problem = documents, problem
                    self._parsed = self.parse(documents)
                    self._log(self._parsed.problems)
                self._read_at = time.monotonic()
            return self._parsed

    def _log(self, problems: tuple[Problem, ...]) -> None:
        """Name the problems in the log, once until others come or go."""
        if problems == self._logged:
            return
        self._logged = problems
        for problem in problems[:MAX_LOGGED]:
            logger.warning("ACL entry %s: %s", problem.where, problem.message)
        if len(problems) > MAX_LOGGED:
            logger.warning("%d more ACL entries have problems", len(problems) - MAX_LOGGED)

    def parse(self, documents: Sequence[Mapping[str, Any]]) -> Acl:
        """The ACL of these entries; without any, an htpasswd file lets its accounts see all.

        While the ACL's file cannot be read, the list is invalid whatever it holds. A token server
        tells no labels.
        """
        if self.acl_file and (problem := self.acl_file.problem):
            return Acl((), (Problem(None, -1, problem),), False)
        if self.htpasswd and not self.acl_file:
            documents = documents or [_EVERY_ACCOUNT]
        acl = parse_acl(documents)
        return without_labels(acl) if self.token_url else acl

    def _forget_acl(self) -> None:
        with self._lock:
            self._documents = None

    def refuse_where_elsewhere(self) -> None:
        """Raise InvalidQuery where the accounts are not in our collection."""
        if self.htpasswd:
            raise InvalidQuery(
                f"the accounts are those of {self.htpasswd.file}: change them with htpasswd -B"
            )
        if self.token_url:
            raise InvalidQuery("the accounts are those of docker_auth.token_url: change them there")

    def _refuse_where_acl_file(self) -> None:
        if self.acl_file:
            raise InvalidQuery(f"the ACL is that of {self.acl_file.file}: change it there")

    def find_acl_documents(self) -> list[Document]:
        """The ACL entries as they are stored, and in that order, in which docker_auth takes them.

        Their values may be anything that BSON has; `plain` makes them fit to be shown.
        """
        return self.acl_file.find_all() if self.acl_file else list(self._acl.find({}, {"_id": 0}))

    def add_acl_entry(self, entry: Mapping[str, Any]) -> bool:
        """Add an entry; False when its `seq` is taken (the order would be undefined)."""
        self._refuse_where_acl_file()
        result = self._acl.update_one(
            {"seq": entry["seq"]}, {"$setOnInsert": dict(entry)}, upsert=True
        )
        self._forget_acl()
        return result.upserted_id is not None

    def remove_acl_entry_at(self, index: int) -> bool:
        """Delete the entry at this place, from 0, if its `seq` cannot be read; False if not.

        One with a `seq` is named by it: places change when others add and delete entries.
        """
        self._refuse_where_acl_file()
        documents = list(self._acl.find({}))
        problems = parse_acl(documents).problems
        if not any(problem.seq is None and problem.index == index for problem in problems):
            return False
        deleted = self._acl.delete_one({"_id": documents[index]["_id"]}).deleted_count
        self._forget_acl()
        return deleted == 1

    def remove_acl_entry(self, seq: int) -> int:
        """Delete the entry with this `seq`, or all where docker_auth would refuse several.

        Returns their number.
        """
        self._refuse_where_acl_file()
        deleted = self._acl.delete_many({"seq": seq}).deleted_count
        self._forget_acl()
        return deleted


def plain(document: Mapping[str, Any]) -> Document:
    """A document in plain JSON values; those that JSON has not are text."""
    return json.loads(json.dumps(document, default=str))  # type: ignore[no-any-return]


def hash_password(password: str) -> str:
    """A bcrypt hash that docker_auth reads.

    Raises:
        InvalidQuery: empty, or more than the 72 bytes that bcrypt looks at.
    """
    secret = password.encode()
    if not secret or b"\0" in secret or len(secret) > MAX_PASSWORD_BYTES:
        raise InvalidQuery("password: 1 to 72 bytes, as bcrypt reads no more")
    return bcrypt.hashpw(secret, bcrypt.gensalt(BCRYPT_ROUNDS)).decode()


@lru_cache(maxsize=16)
def _dummy_hash(rounds: int) -> bytes:
    """Of a random password that nobody keeps."""
    return bcrypt.hashpw(secrets.token_bytes(16).hex().encode(), bcrypt.gensalt(rounds))


@lru_cache(maxsize=1)
def _is_of_nothing(hashed: str) -> bool:
    """Whether it is a hash of the empty password."""
    return _matches(b"", hashed.encode())


def _matches(secret: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(secret, hashed)
    except ValueError:
        return False  # not a bcrypt hash
