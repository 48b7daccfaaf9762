"""`rns config`."""

from __future__ import annotations

from importlib.resources import files

import click


@click.command()
def config() -> None:
    """Print a configuration with every key, its default and its meaning."""
    click.echo(files("app.settings").joinpath("config.yml").read_text(), nl=False)
