"""Which repositories and tags exist, and every move of a tag.

Collection `catalogue` holds three types of rows, so that one push is one command:

- `repository`: `_id` "name registry"; first seen, last push, last delete by digest or as a whole
- `tag`: `_id` "name tag registry"; what it points to now, or when it was deleted
- `move`: `_id` of the event; `of` the tag, repository or "name digest registry" that it changed

Every write is conditional on `position`: the newest change of a row wins, whatever order the
events come in, and repeating a write changes nothing.
"""

from app.store.catalogue.queries import CatalogueQuery
from app.store.catalogue.reading import Catalogue
from app.store.catalogue.values import Move, Repository, Tag
from app.store.catalogue.writing import CatalogueWriter

__all__ = [
    "Catalogue",
    "CatalogueQuery",
    "CatalogueWriter",
    "Move",
    "Repository",
    "Tag",
]
