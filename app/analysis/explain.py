"""Why an account may or may not see a repository, and what a new ACL entry would change.

For administrators: the page `/access/`, `/api/v1/access` and `rns acl explain` show this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from app.errors import InvalidQuery
from app.rules.access import (
    Account,
    Acl,
    Disorder,
    Explanation,
    compile_rule,
    explain,
    find_disorder,
    parse_acl,
)
from app.settings import Settings
from app.store import Stores
from app.store.accounts import plain

MAX_NAMED = 20  # repositories gained or lost that are named


class Change(msgspec.Struct, frozen=True):
    """What an entry that is not saved would do, for this account and the known repositories."""

    explanation: Explanation
    entries: Sequence[Mapping[str, Any]]
    gained: int
    lost: int
    gained_names: Sequence[str]  # the first 20 by name
    lost_names: Sequence[str]


class Answer(msgspec.Struct, frozen=True):
    """Why one account may or may not see one repository.

    `entries` are the ACL's documents without `_id`, as they are stored; a step's or problem's
    `index` counts in them. `disorder` are entries of the whole list that docker_auth's code, which
    does not sort, tries in another order.
    """

    account: str
    is_known: bool
    labels: Mapping[str, Sequence[str]]
    repository: str
    address: str
    explanation: Explanation
    entries: Sequence[Mapping[str, Any]]
    disorder: Sequence[Disorder]
    what_if: Change | None


def parse_entry(text: str) -> dict[str, Any]:
    """An ACL entry as JSON, in docker_auth's shape.

    Raises:
        InvalidQuery: it is none; the message says why.
    """
    try:
        entry = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidQuery(f"entry: not JSON: {error}") from None
    problems = parse_acl([entry]).problems
    if not isinstance(entry, dict) or problems:
        reason = problems[0].message if problems else "not a document"
        raise InvalidQuery(
            f"entry: {reason}; expected "
            '{"seq": 15, "match": {"account": "…", "name": "team/*"}, "actions": ["pull"]}'
        )
    return entry


def explain_access(
    stores: Stores,
    settings: Settings,
    account: str,
    repository: str,
    *,
    address: str = "",
    entry: Mapping[str, Any] | None = None,
) -> Answer:
    """Explain the ACL as it is stored, and as it would be with `entry` added.

    An entry with a `seq` that exists stands for a change of that entry. An unknown account is
    explained as one without labels.
    """
    found = next((a for a in stores.accounts.find_all() if a.name == account), None)
    who = found or Account(account, {})
    documents = stores.accounts.find_acl_documents()
    acl = stores.accounts.parse(documents)
    circumstances: dict[str, Any] = {
        "address": address or None,
        "service": settings.docker_auth.service,
        "own_namespace": settings.access.own_namespace,
        "administrators": settings.access.administrators,
    }
    what_if = None
    if entry is not None:
        seq = parse_acl([entry]).entries[0].seq
        changed = [d for d in documents if d.get("seq") != seq] + [dict(entry)]
        new = stores.accounts.parse(changed)
        gained, lost = _differences(stores, who, acl, new, circumstances)
        what_if = Change(
            explanation=explain(new, who, repository, **circumstances),
            entries=[plain(document) for document in changed],
            gained=len(gained),
            lost=len(lost),
            gained_names=gained[:MAX_NAMED],
            lost_names=lost[:MAX_NAMED],
        )
    return Answer(
        account=account,
        is_known=found is not None or stores.accounts.place == "token_url",
        labels=who.labels,
        repository=repository,
        address=address,
        explanation=explain(acl, who, repository, **circumstances),
        entries=[plain(document) for document in documents],
        disorder=find_disorder(acl),
        what_if=what_if,
    )


def _differences(
    stores: Stores, account: Account, old: Acl, new: Acl, circumstances: dict[str, Any]
) -> tuple[list[str], list[str]]:
    before = compile_rule(old, account, **circumstances)
    after = compile_rule(new, account, **circumstances)
    gained: list[str] = []
    lost: list[str] = []
    for name in stores.catalogue.find_names():
        if before.may_pull(name) != after.may_pull(name):
            (lost if before.may_pull(name) else gained).append(name)
    return gained, lost
