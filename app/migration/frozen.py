"""Whether a source really takes no pushes any more, once somebody says that it is read-only."""

from __future__ import annotations

from collections.abc import Iterable

from app.errors import InvalidReference
from app.migration.crawler import Names, find_repositories
from app.migration.plan import Plan
from app.registry import RegistryClient, RegistryError
from app.registry.folder import SCHEME

NO_REPOSITORY = "it shows no repository of this plan"


def takes_pushes(source: RegistryClient, plan: Plan, known: Names) -> tuple[bool | None, str]:
    """Whether a push to the source would go through, None where nobody can tell, and why.

    Begins an upload in one of its repositories and cancels it: no blob is stored. Where our account
    may not push, others still may.
    """
    if plan.source.url.startswith(SCHEME):
        return None, "it is a folder"
    try:
        repository = _first(find_repositories(source, "", known), plan)
        if not repository:
            return None, NO_REPOSITORY
        source.cancel_upload(repository, source.start_upload(repository))
    except (RegistryError, InvalidReference) as error:
        is_closed = isinstance(error, RegistryError) and error.error_class == "readonly"
        return (False if is_closed else None), str(error)
    return True, f"{repository} took the beginning of an upload"


def _first(repositories: Iterable[tuple[str, bool]], plan: Plan) -> str:
    return next((name for name, _ in repositories if plan.takes(name)), "")
