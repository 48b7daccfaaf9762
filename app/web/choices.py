"""What the fields of filters offer while somebody types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from heapq import nlargest

from flask import g

from app.rules.references import namespace_of
from app.store.usage import UsageQuery
from app.web.runtime import runtime
from app.web.signin import is_signed_in, viewer

DAYS = 7
MOST = 200  # of each field: a page stays small
FIELDS = ("registry", "namespace", "actor")


def choices(field: str) -> Sequence[str]:
    """What a field offers, by name: what pulled or pushed lately, as far as the account sees it.

    Nothing but for FIELDS, and nothing to who has not signed in.
    """
    if field not in FIELDS or not is_signed_in():
        return ()
    if "choices" not in g:
        g.choices = _find_choices()
    found: Sequence[str] = g.choices[field]
    return found


def _find_choices() -> dict[str, Sequence[str]]:
    """By field; of what is summed up already, so that a list costs hardly more."""
    stores, now = runtime().stores, datetime.now(UTC)
    last = stores.days.calendar.day_of(now)
    query = UsageQuery(first=last - timedelta(days=DAYS - 1), last=last)
    sums = stores.usage.read_sums(
        query, viewer().scope, now, tops=("repositories", "accounts"), only_summed=True
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
