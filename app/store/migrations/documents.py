"""Between documents and value types, and from filters to queries."""

from __future__ import annotations

from typing import Any

import msgspec
from pymongo.collection import Collection

from app.store.paging import Count, Document


def fields_from(kind: type[msgspec.Struct], document: Document) -> dict[str, Any]:
    """The fields of a value type that a document has."""
    return {name: document[name] for name in kind.__struct_fields__ if name in document}


def query_of(plan: str, filters: dict[str, str], **default: Any) -> Document:
    """What selects the documents of a plan by fields and their values; "" leaves one out."""
    named = {"_id" if key == "id" else key: value for key, value in filters.items() if value}
    return {"plan": plan, **default, **named}


def count_capped(collection: Collection[Document], query: Document, cap: int) -> Count:
    """How many documents a query selects, exact up to `cap`."""
    number = collection.count_documents(query, limit=cap + 1)
    return Count(min(number, cap), number > cap)
