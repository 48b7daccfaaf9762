"""`rns`: the command line. Exit 0 done, 1 failed, 2 wrong usage; errors are one line on stderr."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from app.cli import (
    accounts,
    catalogue,
    check,
    database,
    events,
    imports,
    migrate,
    original,
    sample,
    serve,
    tokens,
    usage,
)
from app.errors import AppError
from app.settings import load_settings
from app.version import VERSION


def main() -> None:
    """Run the command line and exit."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)  # the help, as it is
        sys.exit(2)
    except click.UsageError as error:
        _fail(error.format_message(), 2)
    except (AppError, click.ClickException, OSError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        _fail(message, 1)
    except UnicodeError:  # its text has a part of what may be a password
        _fail("an argument, or what came on stdin, is not UTF-8", 1)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; what is done is kept, and the command can be run again", 1)


def _fail(message: str, status: int) -> None:
    print(f"rns: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="rns")
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), help="Default: config.yml."
)
@click.pass_context
def cli(context: click.Context, config: Path | None) -> None:
    """Registry Notification Server."""
    if context.invoked_subcommand != sample.config.name:
        context.obj = load_settings(config)


accounts.accounts.add_command(imports.accounts_import)
accounts.acl.add_command(imports.acl_import)
for command in (
    serve.serve,
    check.check,
    serve.demo,
    sample.config,
    accounts.accounts,
    accounts.acl,
    tokens.tokens,
    usage.usage,
    events.events,
    catalogue.catalogue,
    database.database,
    original.import_,
    migrate.migrate,
):
    cli.add_command(command)
