"""What the commands of `rns migrate` share: the group, the plan they are about, who runs them."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
import threading
from collections.abc import Iterator

import click
from tqdm import tqdm

from app.cli.shared import open_stores
from app.migration import Plan, load_plans
from app.migration.looking import examine
from app.migration.sides import Sides, connect_source, connect_target
from app.settings import Settings
from app.store import Stores
from app.store.migrations import PlanStatus


@click.group()
def migrate() -> None:
    """Move everything to another registry while pushes go on."""


of_plan = click.option("--plan", "name", help="Its name; may be left out where there is only one.")


def open_plan(settings: Settings, name: str | None) -> tuple[Stores, Plan]:
    """The stores and the plan of a name, the only plan by default.

    Raises:
        click.UsageError: no name is given, and there is not just one plan.
        ConfigError: there is none with the name.
    """
    plans = load_plans(settings, [name] if name else ())
    if len(plans) != 1:
        names = ", ".join(plan.name for plan in plans)
        raise click.UsageError(
            f"--plan: choose one of {names}" if names else "migrations: none in config.yml"
        )
    return open_stores(settings), plans[0]


within = click.option(
    "--within",
    type=click.IntRange(1),
    default=600,
    show_default=True,
    help="Seconds that the comparison may take.",
)


def compare_now(stores: Stores, plan: Plan, within_s: int) -> None:
    """Ask both registries and compare them, if the plan could be cut over at all."""
    with (
        contextlib.closing(connect_source(plan)) as source,
        contextlib.closing(connect_target(plan)) as target,
        tqdm(unit="tag", disable=None) as progress,
    ):
        sides, owner = Sides(plan, source, target), f"ready {socket.gethostname()}:{os.getpid()}"
        examine(stores, sides, owner, within_s=within_s, each=progress.update)


def who() -> str:
    """Who runs the command, for the audit."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # as in a container whose user has no name
        name = f"user {os.getuid()}"
    return f"{name} at the command line"


@contextlib.contextmanager
def until_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set."""
    ended = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: ended.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def why_stopped(status: PlanStatus) -> str:
    """Why nothing is done for a plan; empty when it goes on."""
    if status.paused:
        return f"paused by {status.paused}"
    breaker = status.breaker
    if not breaker:
        return ""
    why = f"{breaker.error_class}: {breaker.message}"
    if breaker.error_class == "auth":  # not soon, as a few wrong passwords may lock the account
        why += f"; tried again at {breaker.probe_at:%Y-%m-%d %H:%M} UTC, by rns migrate resume now"
    return why
