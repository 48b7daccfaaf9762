"""`rns`: the command line. Exit 0 done, 1 failed, 2 wrong usage; errors are one line on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click
import msgspec
from tqdm import tqdm

from app import demo as demo_data
from app.analysis.explain import explain_access, parse_entry
from app.analysis.summaries import close_days
from app.embedded import running_or_started
from app.errors import AppError, InvalidEnvelope, InvalidQuery
from app.migration import load_plans
from app.migration.live import LiveWishes
from app.notifications.ingest import Ingest, Receipt
from app.rules.access import Explanation, parse_acl
from app.server import check_port
from app.settings import Settings, load_settings
from app.store import Stores, connect
from app.store.events import address_key
from app.version import VERSION

pass_settings = click.make_pass_decorator(Settings)


def main() -> None:
    """Run the command line and exit."""
    from app.cli import migrate as cli_migrate  # noqa: F401 - adds its commands to `cli`

    try:
        cli.main(standalone_mode=False)
    except click.UsageError as error:
        _fail(error.format_message(), 2)
    except (AppError, click.ClickException, OSError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        _fail(message, 1)
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
    context.obj = load_settings(config)


@contextlib.contextmanager
def opened_stores(settings: Settings) -> Iterator[Stores]:
    """The stores of a command; runs the embedded database for it if no server does."""
    with contextlib.ExitStack() as stack:
        uri = None
        if settings.is_embedded:
            uri = stack.enter_context(running_or_started(Path(settings.mongodb.data_dir)))
        stores = connect(settings, uri)
        stack.callback(stores.close)
        stores.ensure_indexes()
        yield stores


def with_stores(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the stores as its first argument."""

    @pass_settings
    def opened(settings: Settings, /, *args: Any, **kwargs: Any) -> Any:
        with opened_stores(settings) as stores:
            return command(stores, *args, **kwargs)

    opened.__doc__ = command.__doc__
    opened.__name__ = command.__name__
    # click keeps the options of a command here until the command is made.
    opened.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    return opened


as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document per line.")


def _print_rows(rows: list[dict[str, Any]], columns: list[str], as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(msgspec.json.encode(row).decode())
        return
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(map(len, values)) for values in zip(columns, *cells, strict=True)]
    for line in [[column.upper() for column in columns], *cells]:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(text.rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode().strip('"')


@cli.command()
@click.pass_context
def serve(context: click.Context) -> None:
    """Run the server in the foreground; with `mongodb.uri: embedded` the database too."""
    check_port(context.obj.server.bind)
    assert context.parent
    if config := context.parent.params["config"]:
        os.environ["RNS_CONFIG"] = str(config)
    program = [sys.executable, "-m", "gunicorn", "--config", "python:app.server.gunicorn_conf"]
    os.execv(sys.executable, [*program, "app:create_app()"])  # noqa: S606 - no shell wanted


@cli.command()
@pass_settings
def check(settings: Settings) -> None:
    """Check configuration, database, accounts and ACL; exit 1 if the server cannot work.

    Entries and accounts that are ignored are listed; they are no error.
    """
    load_plans(settings)
    print("configuration  ok")
    with opened_stores(settings) as stores:
        stores.check()
        print("database       ok")
        problems = list(stores.accounts.load_acl().problems)
        accounts = len(stores.accounts.find_all())
        print(f"accounts       {accounts or 'none: add one with rns accounts add NAME'}")
        for line in stores.accounts.htpasswd.problems if stores.accounts.htpasswd else ():
            print(f"htpasswd       {line}")
        for problem in problems:
            where = "without seq" if problem.seq is None else f"seq {problem.seq}"
            print(f"ACL entry      {where}: {problem.message}")
        if not stores.accounts.load_acl().is_valid:
            raise AppError("the ACL has an invalid entry, so only administrators see anything")


@cli.command()
@click.option("--days", type=click.IntRange(1, 365), default=14, show_default=True)
@click.option("--remove", is_flag=True, help="Remove all demonstration data again.")
@with_stores
def demo(stores: Stores, days: int, remove: bool) -> None:
    """Fill the pages with recorded events, moved to the last days."""
    if remove:
        print(f"removed {demo_data.remove(stores):,} events")
        return
    envelopes = demo_data.make_envelopes(datetime.now(UTC), days)
    stored = demo_data.replay(stores, tqdm(envelopes, unit="event", disable=None))
    print(f"stored {stored:,} events of the registry `{demo_data.REGISTRY}`")


@cli.group()
def accounts() -> None:
    """Accounts, in docker_auth's collection."""


def _read_password(from_stdin: bool, name: str) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.UsageError("no terminal to ask for a password on; use --password-stdin")
    return str(click.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True))


def _parse_labels(labels: tuple[str, ...]) -> dict[str, list[str]]:
    parsed: dict[str, list[str]] = {}
    for label in labels:
        name, separator, value = label.partition("=")
        if not separator or not name or not value:
            raise click.UsageError(f"--label: expected name=value, got {label!r}")
        parsed.setdefault(name, []).append(value)
    return parsed


password_stdin = click.option("--password-stdin", is_flag=True, help="Read it from stdin.")


@accounts.command("add")
@click.argument("name")
@password_stdin
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@with_stores
def accounts_add(stores: Stores, name: str, password_stdin: bool, labels: tuple[str, ...]) -> None:
    """Create an account."""
    parsed = _parse_labels(labels)
    if not stores.accounts.add(name, _read_password(password_stdin, name), parsed):
        raise InvalidQuery(f"the account {name} exists; change it with rns accounts passwd {name}")
    print(f"added {name}")


@accounts.command("passwd")
@click.argument("name")
@password_stdin
@with_stores
def accounts_passwd(stores: Stores, name: str, password_stdin: bool) -> None:
    """Change a password; its sessions end."""
    if not stores.accounts.set_password(name, _read_password(password_stdin, name)):
        raise InvalidQuery(f"there is no account {name}")
    print(f"changed {name}")


@accounts.command("remove")
@click.argument("name")
@with_stores
def accounts_remove(stores: Stores, name: str) -> None:
    """Delete an account; its sessions end."""
    if not stores.accounts.remove(name):
        raise InvalidQuery(f"there is no account {name}")
    print(f"removed {name}")


@accounts.command("list")
@as_json
@with_stores
def accounts_list(stores: Stores, as_json: bool) -> None:
    """List the accounts and their labels."""
    rows = [
        {"name": account.name, "labels": dict(account.labels)}
        for account in stores.accounts.find_all()
    ]
    _print_rows(rows, ["name", "labels"], as_json)


@cli.group()
def acl() -> None:
    """Access control entries, in docker_auth's collection."""


_SEQ = click.IntRange(-(2**53), 2**53)  # what JSON and MongoDB both keep


@acl.command("add")
@click.option("--seq", type=_SEQ, required=True, help="Its position.")
@click.option("--account", help="Pattern for the account.")
@click.option("--name", help="Pattern for the repository.")
@click.option("--ip", help="Address or CIDR of the client.")
@click.option("--service", help="Pattern for the service.")
@click.option("--label", "labels", multiple=True, metavar="NAME=PATTERN")
@click.option("--actions", required=True, help="As pull,push; * for all; empty to deny.")
@click.option("--comment", default="")
@with_stores
def acl_add(
    stores: Stores,
    /,
    seq: int,
    actions: str,
    comment: str,
    labels: tuple[str, ...],
    **match: str | None,
) -> None:
    """Add an entry; the first entry by seq that matches decides."""
    conditions: dict[str, Any] = {key: value for key, value in match.items() if value is not None}
    if labels:
        parsed = _parse_labels(labels)
        for name, patterns in parsed.items():
            if len(patterns) > 1:
                raise click.UsageError(f"--label: {name} is given twice; an entry has one pattern")
        conditions["labels"] = {name: pattern for name, [pattern] in parsed.items()}
    entry: dict[str, Any] = {
        "seq": seq,
        "match": conditions,
        "actions": [action.strip() for action in actions.split(",") if action.strip()],
    }
    if comment:
        entry["comment"] = comment
    if problems := parse_acl([entry]).problems:
        raise InvalidQuery(f"entry: {problems[0].message}")
    if not stores.accounts.add_acl_entry(entry):
        raise InvalidQuery(f"--seq {seq} is taken; see rns acl list")
    print(f"added {seq}")


@acl.command("list")
@as_json
@with_stores
def acl_list(stores: Stores, as_json: bool) -> None:
    """List the entries in the order in which they are tried."""
    rows = stores.accounts.find_acl_documents()
    _print_rows(rows, ["seq", "match", "actions", "comment"], as_json)


@acl.command("remove")
@click.option("--seq", type=_SEQ, required=True)
@with_stores
def acl_remove(stores: Stores, seq: int) -> None:
    """Delete the entry at a position."""
    removed = stores.accounts.remove_acl_entry(seq)
    if not removed:
        raise InvalidQuery(f"there is no entry with seq {seq}")
    print(f"removed {seq}" if removed == 1 else f"removed {seq}: {removed} entries had it")


@acl.command("explain")
@click.argument("account")
@click.argument("repository")
@click.option("--address", default="", help="The client's, for entries with ip.")
@click.option("--what-if", metavar="JSON", help="An entry that is not saved, to see its effect.")
@as_json
@click.pass_context
def acl_explain(
    context: click.Context,
    account: str,
    repository: str,
    address: str,
    what_if: str | None,
    as_json: bool,
) -> None:
    """Say which entry decides whether ACCOUNT sees REPOSITORY; "" is the anonymous account."""
    entry = parse_entry(what_if) if what_if else None
    if address and address_key(address) is None:
        raise InvalidQuery(f"--address: {address} is no IP address")
    with opened_stores(context.obj) as stores:
        answer = explain_access(
            stores, context.obj, account, repository, address=address, entry=entry
        )
    if as_json:
        print(msgspec.json.encode(answer).decode())
        return
    if not answer.is_known and account:
        print(f"There is no account {account}: explained as one without labels.")
    _print_explanation(answer.explanation, answer.entries)
    if answer.what_if:
        print("\nWith the entry that is not saved:")
        _print_explanation(answer.what_if.explanation, answer.what_if.entries)
        for word, number, names in (
            ("gains", answer.what_if.gained, answer.what_if.gained_names),
            ("loses", answer.what_if.lost, answer.what_if.lost_names),
        ):
            more = ", …" if number > len(names) else ""
            print(f"{account} {word} {number:,} repositories: {', '.join(names) or '-'}{more}")


def _print_explanation(explanation: Explanation, entries: Sequence[Mapping[str, Any]]) -> None:
    print(f"{'may pull' if explanation.allowed else 'may not pull'}: {explanation.reason}")
    rows = []
    for step in explanation.steps:
        document = entries[step.index] if step.index < len(entries) else {}
        says = step.because or step.verdict
        if step.hidden_by is not None:
            says += f"; never decides: seq {step.hidden_by:g} matches all that it matches"
        rows.append(
            {
                "place": step.place,
                "seq": f"{step.seq:g}",
                "match": document.get("match"),
                "actions": document.get("actions"),
                "says": says,
            }
        )
    if rows:
        _print_rows(rows, ["place", "seq", "match", "actions", "says"], as_json=False)
    for problem in explanation.problems:
        where = "without seq" if problem.seq is None else f"seq {problem.seq:g}"
        print(f"problem: {where}: {problem.message}")


@cli.group()
def usage() -> None:
    """Figures by day."""


_DAY = click.DateTime(["%Y-%m-%d"])


@usage.command("refresh")
@click.option("--from", "first", type=_DAY, help="Summarise anew from this day on.")
@click.option("--to", "last", type=_DAY, help="Until this day.")
@with_stores
def usage_refresh(stores: Stores, first: datetime | None, last: datetime | None) -> None:
    """Summarise the days that are over and open; the server does so by itself.

    Days whose events were removed by the retention keep their figures. A day for which an event
    came within the last minute is left for the next time.
    """
    if first and last and last < first:
        raise InvalidQuery("--to: is before --from")
    days = close_days(stores, first and first.date(), last and last.date())
    done = rows = 0
    with tqdm(unit="day", disable=None) as bar:
        for _, number, left in days:
            done, rows = done + 1, rows + number
            bar.total = done + left
            bar.update()
    print(f"summarised {done:,} days, {rows:,} rows")


@cli.group()
def events() -> None:
    """Move recorded events, and look after rejected ones."""


@events.command("export")
@click.option("--output", type=click.File("w", encoding="utf-8"), default="-")
@with_stores
def events_export(stores: Stores, output: IO[str]) -> None:
    """Write everything the server keeps, but accounts, as NDJSON."""
    number = 0
    for line in tqdm(stores.dump(), unit="row", disable=None):
        output.write(f"{line}\n")
        number += 1
    print(f"exported {number:,} documents", file=sys.stderr)


def _ingest(settings: Settings, stores: Stores) -> Ingest:
    """As the server's own: what is stored reaches live migrations."""
    return Ingest(stores, LiveWishes(stores.migrations, load_plans(settings)))


@events.command("import")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--registry", default="default", help="For lines that are raw envelopes.")
@pass_settings
@with_stores
def events_import(stores: Stores, settings: Settings, file: IO[bytes], registry: str) -> None:
    """Read an export, or raw envelopes, one per line; repeating is harmless."""
    ingest, total = _ingest(settings, stores), Receipt()
    is_known = registry in [known.name for known in settings.registries]
    for number, line in enumerate(tqdm(file, unit="line", disable=None), 1):
        if not line.strip():
            continue
        try:
            if not line.startswith(b'{"events"'):
                is_new = int(stores.load(line.decode()))
                receipt = Receipt(stored=is_new, duplicate=1 - is_new)
            elif is_known:
                receipt = ingest.receive(line, registry)
            else:
                raise click.UsageError(f"--registry: {registry} is none of registries")
        except UnicodeDecodeError:
            raise InvalidQuery(f"line {number}: not UTF-8") from None
        except (InvalidQuery, InvalidEnvelope) as error:
            raise InvalidQuery(f"line {number}: {error}") from None
        total.stored += receipt.stored
        total.duplicate += receipt.duplicate
        total.rejected += receipt.rejected
    print(
        f"imported {total.stored:,}, already there {total.duplicate:,}, "
        f"rejected {total.rejected:,}",
        file=sys.stderr,
    )


@events.command("rejected")
@click.option("--retry", is_flag=True, help="Try all of them again, after an update.")
@click.option("--drop", metavar="ID", help="Forget one.")
@click.option("--drop-all", is_flag=True, help="Forget all.")
@as_json
@pass_settings
@with_stores
def events_rejected(
    stores: Stores, settings: Settings, retry: bool, drop: str | None, drop_all: bool, as_json: bool
) -> None:
    """List, retry or drop the events that could not be understood."""
    if drop:
        if not stores.rejected.drop(drop):
            raise InvalidQuery(f"there is no rejected event {drop}")
        print(f"dropped {drop}")
        return
    rejected = list(stores.rejected.find_all())
    if drop_all:
        for event in rejected:
            stores.rejected.drop(event.id)
        print(f"dropped {len(rejected)}")
    elif retry:
        stored = _ingest(settings, stores).retry(rejected)
        print(f"stored {stored}, still rejected {len(rejected) - stored}")
    else:
        rows = [msgspec.to_builtins(event) for event in rejected]
        _print_rows(rows, ["id", "registry", "received_at", "reason"], as_json)
