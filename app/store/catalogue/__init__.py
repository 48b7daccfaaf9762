"""Which repositories and tags exist, and every move of a tag.

- `repositories`: `_id` "name registry"; last push, last delete
- `tags`: `_id` "name tag registry"; what it points to now, or when it was deleted
- `tag_history`: `_id` of the event; `of` the tag, digest or repository that it changed. What only
  pulls tell of a tag stands there too, as long as nothing else does.

A tag and its repository stand under the name that they have now; their moves keep the one that they
came with. Everything follows from the set of events alone.
"""

from app.store.catalogue.queries import CatalogueQuery
from app.store.catalogue.reading import Catalogue
from app.store.catalogue.values import Move, Repointed, Repository, SeenBy, Tag
from app.store.catalogue.writing import CatalogueWriter

__all__ = [
    "Catalogue",
    "CatalogueQuery",
    "CatalogueWriter",
    "Move",
    "Repointed",
    "Repository",
    "SeenBy",
    "Tag",
]
