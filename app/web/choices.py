"""What the fields of filters offer while somebody types."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from time import monotonic

from flask import current_app, g

from app.rules.references import namespace_of
from app.store.scope import Scope
from app.store.usage import UsageQuery
from app.web.runtime import runtime
from app.web.signin import is_signed_in, viewer

DAYS = 7
MOST = 200  # of each field: a page stays small
FIELDS = ("registry", "namespace", "actor")
REMEMBERED_S = 60
MAX_REMEMBERED = 500  # ways to see something

Choices = Mapping[str, Sequence[str]]  # by field


def choices(field: str) -> Sequence[str]:
    """What a field offers, by name: what pulled or pushed lately, as far as the account sees it.

    Nothing but for FIELDS, and nothing to who has not signed in.
    """
    if field not in FIELDS or not is_signed_in():
        return ()
    if "choices" not in g:
        g.choices = _remember_choices(viewer().scope)
    found: Choices = g.choices
    return found[field]


def _remember_choices(scope: Scope) -> Choices:
    """Those of a scope, up to a minute old: to read them is a quarter of what a list costs.

    They are remembered by all that decides what is seen, so another rule has others at once.
    """
    seen = repr((scope.queries, scope.account, scope.records))
    key, now = hashlib.sha256(seen.encode()).digest(), monotonic()
    remembered: dict[bytes, tuple[float, Choices]]
    remembered = current_app.extensions.setdefault("choices", {})
    until, found = remembered.get(key, (now, {}))
    if until <= now:
        if len(remembered) >= MAX_REMEMBERED:
            remembered.clear()
        found = _find_choices(scope)
        remembered[key] = now + REMEMBERED_S, found
    return found


def _find_choices(scope: Scope) -> Choices:
    """Of what is summed up already, and of nothing else."""
    stores, now = runtime().stores, datetime.now(UTC)
    last = stores.days.calendar.day_of(now)
    query = UsageQuery(first=last - timedelta(days=DAYS - 1), last=last)
    sums = stores.usage.read_sums(
        query, scope, now, tops=("repositories", "accounts"), only_summed=True
    )
    found: dict[str, Counter[str]] = {field: Counter() for field in FIELDS}
    for (registry, repository), numbers in sums.tops["repositories"].items():
        found["registry"][registry] += sum(numbers)
        found["namespace"][namespace_of(repository)] += sum(numbers)
    for (account,), numbers in sums.tops["accounts"].items():
        found["actor"][account] += sum(numbers)
    return {field: _busiest(numbers) for field, numbers in found.items()}


def _busiest(numbers: Counter[str]) -> Sequence[str]:
    """Names by name, those with most where there are too many; "" is none."""
    return sorted(nlargest(MOST, filter(None, numbers), key=numbers.__getitem__))
