"""One list, four forms: an HTML page, CSV, NDJSON, and the API's JSON.

Every list is a `Listing`: how to fetch a page, how to count, and the columns of an export.
"""

from __future__ import annotations

import base64
import csv
import errno
import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
from flask import Response, g, request, stream_with_context, url_for

from app.errors import AppError, InvalidCursor, InvalidQuery
from app.store.paging import Count, Page
from app.web.signin import account_name, look_again

logger = logging.getLogger(__name__)

PAGE_SIZE = 50
MAX_PAGE_SIZE = 500
EXPORT_PAGE_SIZE = 500
PAGE_COUNT_CAP = 500  # a page says "more than 500": counting is most of what a page costs
API_COUNT_CAP = 10_000
_SAFE = "!$'()*,/:;?@"  # as url_for leaves them in a query
MAX_WAY_BACK = 20  # pages that one can go back to, by links
FILES = {"csv": "text/csv", "ndjson": "application/x-ndjson"}  # with their content types

Item = dict[str, Any]
Row = TypeVar("Row")


class Listing(msgspec.Struct, frozen=True):
    """`find(cursor, limit)` gives a page of items, `count(cap)` the total, both for one viewer.

    What the viewer may see can be less at each page of an export, so `find` asks again.
    """

    name: str  # of the exported file
    columns: Sequence[str]
    find: Callable[[str | None, int], Page[Item]]
    count: Callable[[int], Count]


def slice_of(
    rows: Sequence[Row],
    key: Callable[[Row], str],
    cursor: str | None,
    limit: int,
    *,
    newest_first: bool = False,
) -> tuple[list[Row], str | None]:
    """One page of a list that is in memory, ordered by `key`, and the cursor of the next."""
    ordered = sorted(rows, key=key, reverse=newest_first)
    if cursor is not None:
        ordered = [r for r in ordered if (key(r) < cursor if newest_first else key(r) > cursor)]
    return ordered[:limit], key(ordered[limit - 1]) if len(ordered) > limit else None


def count_of(rows: Sequence[Any], cap: int) -> Count:
    """The length of a list that is in memory, up to `cap`."""
    return Count(min(len(rows), cap), len(rows) > cap)


def fields_of(struct: Any, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """A stored value as the API and the exports name its fields."""
    return {
        name: getattr(struct, name) for name in struct.__struct_fields__ if name not in leave_out
    }


def api_page(listing: Listing) -> dict[str, Any]:
    """The API's answer: items, the URL of the next page or null, and with `total=1` the total.

    `total` is exact up to 10,000; `total_is_minimum` says that there are more. To count costs
    several times what the page costs.
    """
    limit, is_counted = _limit(), _asks_for_total()
    page = listing.find(cursor(), limit)
    answer: dict[str, Any] = {"items": page.items, "next": next_url(page, external=True)}
    if is_counted:
        count = total(listing, page, API_COUNT_CAP)
        answer |= {"total": count.number, "total_is_minimum": count.at_least}
    return answer


def next_url(page: Page[Any], *, external: bool = False) -> str | None:
    """The URL of the page after this one, with the same filters."""
    if page.next is None:
        return None
    return url_with(external=external, cursor=page.next)


def url_with(*, external: bool = False, **changes: str | None) -> str:
    """The current URL with some parameters changed, or removed where None.

    `cursor` is the `next` of a page.
    """
    if place := changes.get("cursor"):
        changes["cursor"] = _seal(place)
    return same_query(_here(external=external), **changes)


def page_url(endpoint: str, /, **query: str | None) -> str:
    """The URL of a page whose address has no variable part: as url_for, in a fraction of its time.

    A list has some hundred of them.
    """
    bases: dict[str, str] = g.setdefault("page_urls", {})
    if endpoint not in bases:
        bases[endpoint] = url_for(endpoint)
    given = {name: value for name, value in query.items() if value is not None}
    return f"{bases[endpoint]}?{urlencode(given, safe=_SAFE)}" if given else bases[endpoint]


def _here(*, external: bool = False) -> str:
    assert request.endpoint
    return url_for(request.endpoint, _external=external, **(request.view_args or {}))


def same_query(url: str, **changes: str | None) -> str:
    """`url` with the parameters of this request, some changed, or removed where None.

    Never by way of url_for, which has arguments of its own: `?_scheme=javascript` is a parameter
    like any other.
    """
    if "cursor" in changes:
        changes.setdefault("back", None)
    arguments = {**request.args.to_dict(), **changes}
    given = {name: value for name, value in arguments.items() if value is not None}
    return f"{url}?{urlencode(given, safe='/:', errors='replace')}" if given else url


def following_url(page: Page[Any]) -> str | None:
    """The URL of the next page, which leads back by the pages that lead to it."""
    if page.next is None:
        return None
    way = [*_way_back(), request.args.get("cursor", "")][-MAX_WAY_BACK:]
    return url_with(cursor=page.next, back=" ".join(way).strip() or None)


def previous_url() -> str | None:
    """The URL of the page that led to this one, if it was not the first."""
    *way, last = _way_back() or [""]
    if not last:
        return None
    return same_query(_here(), cursor=last, back=" ".join(way) or None)


def _way_back() -> list[str]:
    """The cursors of the pages before this one but for the first, which has none."""
    return request.args.get("back", "").split()[-MAX_WAY_BACK:]


def total(listing: Listing, page: Page[Item], cap: int = PAGE_COUNT_CAP) -> Count:
    """How many there are; not counted where `page`, the one asked for, is all there is."""
    if page.next is None and cursor() is None:
        return Count(len(page.items))
    return listing.count(cap)


def check_page() -> None:
    """Refuse a page that cannot be, also where the whole list is sent."""
    _limit(), _asks_for_total(), cursor()


def _limit() -> int:
    text = request.args.get("limit", str(PAGE_SIZE))
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PAGE_SIZE))
    if not is_number or not 1 <= int(text) <= MAX_PAGE_SIZE:
        raise InvalidQuery(f"limit: expected 1 to {MAX_PAGE_SIZE}")
    return int(text)


def _asks_for_total() -> bool:
    text = request.args.get("total", "0")
    if text not in ("0", "1"):
        raise InvalidQuery("total: expected 0 or 1")
    return text == "1"


def cursor() -> str | None:
    """The place in the list at which the page that is asked for begins; None of the first one.

    Raises:
        InvalidCursor: no page of this list gave it, for any text would be a place in it.
    """
    given = request.args.get("cursor")
    if not given:
        return None
    packed = given.partition(".")[0]
    try:
        place = base64.b64decode(packed + "=" * (-len(packed) % 4), b"-_", validate=True).decode()
    except ValueError:
        place = ""
    if _seal(place) != given:
        raise InvalidCursor("cursor: expected the one of a `next` of this list")
    return place


def _seal(place: str) -> str:
    """A place in this list as the cursor of a URL. Its check finds mistakes; it keeps no secret."""
    packed = base64.urlsafe_b64encode(place.encode()).rstrip(b"=").decode()
    check = hashlib.sha256(f"{request.path}\n{place}".encode()).hexdigest()[:8]
    return f"{packed}.{check}"


def asks_for_file() -> bool:
    """Whether the answer is to be an export."""
    return request.args.get("format") in FILES


def export(listing: Listing) -> Response | None:
    """The whole list as CSV or NDJSON if `format` asks for it, else None.

    Rows are sent as they are read, page by page. An export that breaks off ends without the last
    chunk of HTTP/1.1, so that nobody takes it for whole.

    Raises:
        InvalidQuery: another format.
    """
    kind = request.args.get("format")
    if not kind or kind == "html":
        return None
    if kind not in FILES:
        raise InvalidQuery("format: expected csv or ndjson")
    rows = {"csv": _csv_rows, "ndjson": _ndjson_rows}[kind]
    first = listing.find(None, EXPORT_PAGE_SIZE)  # an error here still gets its own status
    stream = stream_with_context(rows(listing, _all_items(listing, first)))
    response = Response(stream, mimetype=FILES[kind])
    response.headers["Content-Disposition"] = f'attachment; filename="{listing.name}.{kind}"'
    return response


def _all_items(listing: Listing, page: Page[Item]) -> Iterator[Item]:
    yield from page.items
    while page.next is not None:
        try:
            look_again()  # whoever reads slowly is here for long
            page = listing.find(page.next, EXPORT_PAGE_SIZE)
        except AppError as error:
            told = listing.name, account_name(), request.remote_addr or "a Unix socket", error
            logger.warning("an export of %s for %r from %s breaks off: %s", *told)
            # The status is sent already. gunicorn knows this errno and is silent about it.
            raise ConnectionResetError(errno.ECONNRESET, "the export breaks off") from error
        yield from page.items


def _csv_rows(listing: Listing, items: Iterator[Item]) -> Iterator[bytes]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(listing.columns)
    for item in items:
        writer.writerow([_cell(item.get(column)) for column in listing.columns])
        if buffer.tell() > 32 * 1024:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _ndjson_rows(listing: Listing, items: Iterator[Item]) -> Iterator[bytes]:
    for item in items:
        yield msgspec.json.encode(item) + b"\n"


def _cell(value: Any) -> str:
    """A cell that a spreadsheet shows as text and never runs as a formula (OWASP)."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    text = str(value)
    return f"'{text}" if text[:1] in "=+-@\t\r" and text[:1] else text
