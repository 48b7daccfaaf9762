"""Why a repository may or may not be pulled, entry by entry."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address
from itertools import islice

import msgspec

from app.rules.access.acl import FIELDS, Account, Acl, Entry, Problem
from app.rules.access.matching import Request, conditions_of, hold, matches, variables_of
from app.rules.addresses import parse_ip
from app.rules.patterns import TooComplex, is_regex

MAX_COMPARED = 200_000  # pairs; a page waits for it


class Step(msgspec.Struct, frozen=True):
    """What one entry says about one request.

    `place` counts the entries from 1 in the order in which they are tried, `index` from 0 among the
    documents. `verdict` is `decides`, `too late` (it matches after the one that decides) or `no
    match`, and then `because` names the first condition that is not met. `hidden_by` is the `seq`
    of an earlier entry that matches all that this one can: it never decides.
    """

    seq: int
    place: int
    index: int
    allows: bool
    verdict: str
    because: str
    hidden_by: int | None


class Explanation(msgspec.Struct, frozen=True):
    """Why a repository may or may not be pulled; `steps` are all entries in their order.

    `unsorted` says which entry decides in docker_auth's code, which takes the entries as they are
    stored, where that changes the answer; else "".
    """

    allowed: bool
    reason: str
    unsorted: str
    steps: tuple[Step, ...]
    problems: tuple[Problem, ...]


def explain(
    acl: Acl,
    account: Account,
    repository: str,
    *,
    address: str | None,
    service: str,
    own_namespace: bool,
    administrators: Collection[str],
) -> Explanation:
    """Say which entry decides about one repository; agrees with compile_rule for all arguments."""
    request, client = Request(account, service, repository), parse_ip(address or "")
    decider: Entry | None = None
    matching: list[Entry] = []
    steps, hidden = [], find_hidden(acl)
    for place, entry in enumerate(acl.entries, 1):
        because = _unmet(entry, request, client)
        verdict = "no match" if because else "too late" if decider else "decides"
        if verdict == "decides":
            decider = entry
        if not because:
            matching.append(entry)
        hidden_by = hidden.get(entry.seq)
        steps.append(Step(entry.seq, place, entry.index, entry.allows, verdict, because, hidden_by))
    own = own_namespace and account.name and repository.startswith(f"{account.name}/")
    unsorted = ""
    if account.name and account.name in administrators:
        allowed, reason = True, "an administrator sees everything (access.administrators)"
    elif not acl.is_valid:
        allowed, reason = False, "the list has an invalid entry, so it denies everything"
    elif decider:
        what = _does(decider)
        stored_first = min(matching, key=lambda entry: entry.index)
        if stored_first.allows != decider.allows:
            unsorted = f"seq {stored_first.seq} is stored before it, and {_does(stored_first)}"
        allowed, reason = decider.allows, f"the entry with seq {decider.seq} decides: it {what}"
    elif own:
        allowed, reason = True, "no entry matches, but it is the account's own namespace"
    else:
        allowed, reason = False, "no entry matches, and what nothing allows is denied"
    return Explanation(allowed, reason, unsorted, tuple(steps), acl.problems)


def find_hidden(acl: Acl) -> dict[int, int]:
    """Entries that never decide, each with the first that matches all that it can match.

    Of very many entries only the first few hundred are looked at.
    """
    found: dict[int, int] = {}
    pairs = ((e, later) for place, later in enumerate(acl.entries) for e in acl.entries[:place])
    for earlier, later in islice(pairs, MAX_COMPARED):
        if later.seq not in found and _hides(earlier, later):
            found[later.seq] = earlier.seq
    return found


def _does(entry: Entry) -> str:
    return "allows pull" if entry.allows else "does not allow pull"


def _unmet(entry: Entry, request: Request, client: IPv4Address | IPv6Address | None) -> str:
    """The first condition of an entry that does not hold, in words; "" when all hold."""
    if entry.network and (client is None or client not in entry.network):
        return f"ip {entry.network} does not hold {client or 'an unknown address'}"
    try:
        variables = variables_of(entry, request)
        named = [*(f for f in FIELDS if entry.patterns[f] is not None), *entry.labels]
        for name, condition in zip(named, conditions_of(entry, request, FIELDS), strict=True):
            if not hold([condition], variables):
                values = ", ".join(map(repr, condition[1])) or "no value"
                return f"{name} {condition[0]!r} does not match {values}"
    except TooComplex as error:
        return f"too complex to be tried, so it allows nothing: {error}" if entry.allows else ""
    return ""


def _hides(earlier: Entry, later: Entry) -> bool:
    """Whether all that `later` can match surely matches `earlier`; misses less obvious cases."""
    networks = earlier.network, later.network
    if networks[0] is not None and (
        networks[1] is None
        or networks[0].version != networks[1].version
        or not networks[1].subnet_of(networks[0])  # type: ignore[arg-type]
    ):
        return False
    if any(later.labels.get(label) != pattern for label, pattern in earlier.labels.items()):
        return False
    pairs = ((earlier.patterns[field], later.patterns[field]) for field in FIELDS)
    return all(wide is None or wide == narrow or _holds(wide, narrow) for wide, narrow in pairs)


def _holds(wide: str, narrow: str | None) -> bool:
    """Whether a pattern without placeholders matches the only text that another one matches."""
    is_text = narrow is not None and not re.search(r"[*?\[\\$]", narrow) and not is_regex(narrow)
    return is_text and "${" not in wide and matches(wide, narrow or "")
