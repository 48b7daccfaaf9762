"""One migration as its configuration says it: what, from where, to where, and how carefully."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from app.errors import ConfigError
from app.migration.filters import Choice, TagChoice
from app.references import parse_repository
from app.registry import Endpoint
from app.settings import Endpoint as EndpointSettings
from app.settings import Migration, MigrationOptions, Settings, Target

MB = 10**6

Deletes = Literal["off", "tags", "tags_and_digests"]


class Plan:
    """A checked migration; no secret is in its text. Raises ConfigError when it cannot be."""

    def __init__(self, migration: Migration, path: str = "migration") -> None:
        self.name = migration.name
        self.registry = migration.source.registry_id
        self.source = _endpoint(migration.source, f"{path}.source")
        self.target = _endpoint(migration.target, f"{path}.target")
        self.debug_url = migration.source.debug_url
        self.limits = migration.target.limits
        self.options: MigrationOptions = migration.options
        deletes = migration.options.deletes
        self.deletes: Deletes = "off" if isinstance(deletes, bool) else deletes
        self._repositories = Choice(migration.repos, f"{path}.repos")
        self.tags = TagChoice(migration.tags, f"{path}.tags")
        self._map = [(entry.from_, entry.to) for entry in migration.map]

    def __repr__(self) -> str:
        return f"Plan({self.name!r})"

    def takes(self, repository: str, reference: str = "") -> bool:
        """Whether a repository, or a reference that was just pushed to it, is part of the plan."""
        return self._repositories.takes(repository) and (
            not reference or self.tags.takes(reference)
        )

    def map(self, repository: str) -> str:
        """The repository's name at the target: the first prefix that fits is replaced.

        Raises:
            InvalidReference: what comes out is no repository name.
        """
        for prefix, replacement in self._map:
            if repository.startswith(prefix):
                return parse_repository(replacement + repository.removeprefix(prefix))
        return repository


def _endpoint(settings: EndpointSettings, path: str) -> Endpoint:
    fields = {
        name: getattr(settings, name)
        for name in EndpointSettings.__struct_fields__
        if name != "token_realms"
    }
    if isinstance(settings, Target):
        fields["chunk_bytes"] = settings.limits.chunk_mb * MB
    endpoint = Endpoint(**fields, token_realms=tuple(settings.token_realms))
    try:
        endpoint.check()
    except ConfigError as error:
        raise ConfigError(f"{path}.{error}") from None
    return endpoint


def load_plans(settings: Settings, names: Sequence[str] = ()) -> list[Plan]:
    """The plans of the configuration, all or those with these names.

    Raises:
        ConfigError: one cannot be, or there is none of this name.
    """
    plans = [
        Plan(migration, f"migrations[{index}]")
        for index, migration in enumerate(settings.migrations)
    ]
    known = {plan.name for plan in plans}
    for name in names:
        if name not in known:
            raise ConfigError(f"migrations: there is none with the name {name}")
    return [plan for plan in plans if not names or plan.name in names]
