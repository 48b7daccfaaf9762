"""One migration as its configuration says it: what, from where, to where, and how carefully."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

import msgspec

from app.errors import ConfigError, InvalidReference
from app.migration.filters import Choice, TagChoice
from app.registry import Endpoint, Manifest
from app.registry.folder import SCHEME
from app.rules.events import Descriptor
from app.rules.references import parse_repository
from app.settings import Endpoint as EndpointSettings
from app.settings import Migration, MigrationOptions, Settings, Source, Target, parse_duration

MB = 10**6

Deletes = Literal["off", "tags", "tags_and_digests"]


class Plan:
    """A checked migration; no secret is in its text. Raises ConfigError when it cannot be.

    `counterpart` is the name of its way back, or of what it is the way back of; "" for none.
    """

    def __init__(
        self, migration: Migration, path: str = "migration", counterpart: str = ""
    ) -> None:
        self.name = migration.name
        self.counterpart = counterpart
        self.is_way_back = bool(migration.reverse_of)
        # No events tell of a folder.
        self.registry = "" if migration.source.oci_dir else migration.source.registry_id
        self.source = _endpoint(migration.source, f"{path}.source")
        self.target = _endpoint(migration.target, f"{path}.target")
        self.debug_url = migration.source.debug_url
        self.limits = migration.target.limits
        self.options: MigrationOptions = migration.options
        deletes = migration.options.deletes
        self.deletes: Deletes = "off" if isinstance(deletes, bool) else deletes
        platforms = migration.options.platforms
        self.platforms = frozenset(() if isinstance(platforms, str) else platforms)  # none: all
        self.debounce = timedelta(seconds=migration.options.debounce_s)
        self.verify_every = parse_duration(str(migration.options.verify_every))
        self._repositories = Choice(migration.repos, f"{path}.repos")
        self.tags = TagChoice(migration.tags, f"{path}.tags")
        self._map = [(entry.from_, entry.to) for entry in migration.map]

    def __repr__(self) -> str:
        return f"Plan({self.name!r})"

    def takes(self, repository: str, reference: str = "") -> bool:
        """Whether a repository, or a reference that was just pushed to it, is part of the plan."""
        taken = self._find_origins(repository) if self.is_way_back else [repository]
        return any(map(self._repositories.takes, taken)) and (
            not reference or self.tags.takes(reference)
        )

    def blobs_of(self, manifest: Manifest) -> list[Descriptor]:
        """The blobs of a manifest that the target has to have."""
        foreign = manifest.foreign if self.options.foreign_layers == "copy" else ()
        return [*manifest.blobs, *foreign]

    def map(self, repository: str) -> str:
        """The repository's name at the target: the first prefix that fits is replaced.

        On a way back, the name that the map made this one of.

        Raises:
            InvalidReference: what comes out is no repository name, or could be several.
        """
        if not self.is_way_back:
            return parse_repository(self._rename(repository))
        origins = list(filter(self._repositories.takes, self._find_origins(repository)))
        if len(origins) != 1:
            could = " or ".join(origins) or "nothing"
            raise InvalidReference(f"{repository} could be {could} by the map of the way there")
        return parse_repository(origins[0])

    def find_sharers(self, repository: str) -> list[str]:
        """The other repositories of the source that have the same name at the target."""
        if self.is_way_back:
            return []  # the map makes only one name of each
        renamed = self._rename(repository)
        return [
            name
            for name in dict.fromkeys([*self._find_origins(renamed), renamed])
            if name != repository and self._rename(name) == renamed and self.takes(name)
        ]

    def _rename(self, repository: str) -> str:
        for prefix, replacement in self._map:
            if repository.startswith(prefix):
                return replacement + repository.removeprefix(prefix)
        return repository

    def _find_origins(self, renamed: str) -> list[str]:
        """The names that the map makes this one of; itself only if it makes it of no other."""
        undone = dict.fromkeys(
            prefix + renamed.removeprefix(replacement)
            for prefix, replacement in self._map
            if renamed.startswith(replacement)
        )
        origins = [name for name in undone if self._rename(name) == renamed]
        return origins or [renamed] * (self._rename(renamed) == renamed)


def _endpoint(settings: EndpointSettings, path: str) -> Endpoint:
    if settings.oci_dir:
        return Endpoint(url=f"{SCHEME}{Path(settings.oci_dir).absolute()}")
    fields = {
        name: getattr(settings, name)
        for name in EndpointSettings.__struct_fields__
        if name not in ("token_realms", "oci_dir")
    }
    if isinstance(settings, Target):
        fields["chunk_bytes"] = settings.limits.chunk_mb * MB
    endpoint = Endpoint(**fields, token_realms=tuple(settings.token_realms))
    try:
        endpoint.check()
    except ConfigError as error:
        raise ConfigError(f"{path}.{error}") from None
    return endpoint


def _reversed(way_back: Migration, way: Migration) -> Migration:
    """A way back with what it has from the plan that it is the way back of."""
    shared = EndpointSettings.__struct_fields__
    there = {name: getattr(way.target, name) for name in shared}
    here = {name: getattr(way.source, name) for name in shared}
    return msgspec.structs.replace(
        way_back,
        source=Source(**there, registry_id=way.target.registry_id, debug_url=way.target.debug_url),
        target=Target(**here, limits=way.target.limits),
        repos=way.repos,
        tags=way.tags,
        map=way.map,
    )


def load_plans(settings: Settings, names: Sequence[str] = ()) -> list[Plan]:
    """The plans of the configuration, all or those with these names.

    Raises:
        ConfigError: one cannot be, or there is none of this name.
    """
    by_name = {migration.name: migration for migration in settings.migrations}
    ways_back = {migration.reverse_of: migration.name for migration in settings.migrations}
    plans = [
        Plan(
            _reversed(migration, by_name[migration.reverse_of])
            if migration.reverse_of
            else migration,
            f"migrations[{index}]",
            migration.reverse_of or ways_back.get(migration.name, ""),
        )
        for index, migration in enumerate(settings.migrations)
    ]
    for name in names:
        if name not in by_name:
            raise ConfigError(f"migrations: there is none with the name {name}")
    return [plan for plan in plans if not names or plan.name in names]
