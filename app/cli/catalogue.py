"""`rns catalogue`: which repositories and tags there are."""

from __future__ import annotations

import contextlib

import click
from tqdm import tqdm

from app.cli.shared import open_stores
from app.errors import ConfigError
from app.migration.registry_tags import find_pushes
from app.registry import Endpoint, RegistryClient
from app.settings import Registry, Settings


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
    stores = open_stores(settings)
    with contextlib.closing(RegistryClient(_endpoint(registry))) as client:
        number = 0
        for push in tqdm(find_pushes(client, name), unit="tag", disable=None):
            known = stores.catalogue.get_tag(name, push.repository, push.tag or "")
            if known and not known.deleted and known.digest == push.digest:
                continue
            stores.manifests.add([push])
            stores.catalogue_writer.add_pushes([push])
            number += 1
    print(f"imported {number:,} tags")


def _endpoint(registry: Registry) -> Endpoint:
    return Endpoint(
        url=registry.url,
        username=registry.username,
        password=registry.password,
        ca_file=registry.ca_file,
        insecure=registry.insecure,
        plain_http=registry.url.startswith("http://"),
    )
