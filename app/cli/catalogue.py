"""`rns catalogue`: which repositories and tags there are."""

from __future__ import annotations

import contextlib
import sys
from functools import partial

import click
import msgspec
from tqdm import tqdm

from app.cli.shared import as_json, open_projector, open_stores, print_rows
from app.errors import AppError, ConfigError
from app.migration.registry_tags import find_pushes
from app.registry import RegistryClient
from app.rules.events import Event
from app.server.catalogue_checks import check_catalogue, endpoint_of
from app.server.projecting import make_projector
from app.settings import Registry, Settings
from app.store import Stores


@click.group()
def catalogue() -> None:
    """What repositories and tags there are."""


@catalogue.command("import")
@click.option("--registry", "name", default="default", show_default=True)
@click.pass_obj
def catalogue_import(settings: Settings, name: str) -> None:
    """Take in the tags of a registry that were pushed before events came; repeating is harmless."""
    registry = _registry_named(settings, name)
    stores, number = open_stores(settings), 0
    with (
        contextlib.closing(RegistryClient(endpoint_of(registry))) as client,
        open_projector(settings, stores) as projector,
    ):
        for push in tqdm(find_pushes(client, name), unit="tag", disable=None):
            known = stores.catalogue.get_tag(name, push.repository, push.tag or "", None)
            if known and not known.deleted and known.digest == push.digest:
                continue
            projector.alone(partial(_import_push, stores, push))
            number += 1
    print(f"imported {number:,} tags")


@catalogue.command("check")
@click.option("--registry", "name", default="default", show_default=True)
@click.option("--repair", is_flag=True, help="Have the catalogue say what the registry does.")
@click.option("--force", is_flag=True, help="Although unusually many tags are gone.")
@as_json
@click.pass_obj
def catalogue_check(
    settings: Settings, name: str, repair: bool, force: bool, as_json: bool
) -> None:
    """Compare the catalogue with its registry; exit 1 if they differ and that is not repaired.

    `unheard` is at the registry and no event told of it, `moved` points elsewhere there, `gone` is
    on record only. Servers do the same, with repair, every `registries[].check_every`.
    """
    if force and not repair:
        raise click.UsageError("--force is for --repair: without it nothing is changed")
    registry = _registry_named(settings, name)
    stores = open_stores(settings)
    make = partial(make_projector, settings, stores, passing=True) if repair else None
    with tqdm(unit="tag", disable=None) as progress:
        check, rows = check_catalogue(stores, registry, make, all_=force, each=progress.update)
    columns = ["kind", "repository", "tag", "recorded", "found", "message"]
    print_rows([msgspec.to_builtins(row) for row in rows], columns, as_json)
    for gap in stores.checks.find_gaps(name) if not as_json else ():
        print(
            f"{gap.began:%Y-%m-%d %H:%M:%S} to {gap.ended:%H:%M:%S} UTC: {gap.why}; events of "
            "that time may be missing",
            file=sys.stderr,
        )
    left = len(rows) - check.repaired
    if left:
        why = f": {check.message}" if check.message else ""
        raise AppError(f"{left} differences between catalogue and registry{why}")


def _registry_named(settings: Settings, name: str) -> Registry:
    registry = next((entry for entry in settings.registries if entry.name == name), None)
    if registry is None:
        names = ", ".join(entry.name for entry in settings.registries) or "none"
        raise ConfigError(f"--registry: registries has none with the name {name}; known: {names}")
    if not registry.url:
        raise ConfigError(f"registries: {name} has no url")
    return registry


def _import_push(stores: Stores, push: Event) -> None:
    stores.manifests.learn([push])
    stores.catalogue_writer.apply([push])
