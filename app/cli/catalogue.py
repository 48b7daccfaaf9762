"""`rns catalogue`: which repositories and tags there are."""

from __future__ import annotations

import contextlib
from functools import partial

import click
from tqdm import tqdm

from app.cli.shared import open_projector, open_stores
from app.errors import ConfigError
from app.migration.registry_tags import find_pushes
from app.registry import Endpoint, RegistryClient
from app.rules.events import Event
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
    registry = next((entry for entry in settings.registries if entry.name == name), None)
    if registry is None:
        raise ConfigError(f"registries: there is none with the name {name}")
    if not registry.url:
        raise ConfigError(f"registries: {name} has no url")
    stores, number = open_stores(settings), 0
    with (
        contextlib.closing(RegistryClient(_endpoint(registry))) as client,
        open_projector(settings, stores) as projector,
    ):
        for push in tqdm(find_pushes(client, name), unit="tag", disable=None):
            known = stores.catalogue.get_tag(name, push.repository, push.tag or "", None)
            if known and not known.deleted and known.digest == push.digest:
                continue
            projector.alone(partial(_import_push, stores, push))
            number += 1
    print(f"imported {number:,} tags")


def _import_push(stores: Stores, push: Event) -> None:
    stores.manifests.learn([push])
    stores.catalogue_writer.apply([push])


def _endpoint(registry: Registry) -> Endpoint:
    return Endpoint(
        url=registry.url,
        username=registry.username,
        password=registry.password,
        ca_file=registry.ca_file,
        insecure=registry.insecure,
        plain_http=registry.url.startswith("http://"),
    )
