"""`rns import original`: what the original Registry Notification Server recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
from tqdm import tqdm

from app.cli.shared import open_projector, open_stores
from app.errors import InvalidEvent, InvalidReference
from app.notifications.loading import Loaded, load_events
from app.rules.events import Event
from app.rules.original import Row, is_taken_over, parse_record, parse_tag_row
from app.settings import Settings
from app.store import Stores
from app.store.original import RECORDS, TAGS, OriginalRows, open_original

Parse = Callable[[Row, str, datetime], Event]


@click.group("import")
def import_() -> None:
    """Take over what another program recorded."""


@import_.command("original")
@click.option(
    "--config",
    "file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The original's configuration: it names the collections.",
)
@click.option("--uri", envvar="ORIGINAL_URI", help="Where they are now; else where FILE says.")
@click.option("--database", metavar="NAME", help="In which they are now; else as FILE says.")
@click.option("--registry", metavar="NAME", default="default", show_default=True)
@click.pass_obj
def import_original(
    settings: Settings, file: Path, uri: str | None, database: str | None, registry: str
) -> None:
    """Take over records and tags of the original server; repeating is harmless.

    It kept no digests. The tags are there without until `rns catalogue check --repair` asks the
    registry.
    """
    if registry not in [known.name for known in settings.registries]:
        raise click.UsageError(f"--registry: {registry} is none of registries")
    original = click.get_current_context().with_resource(open_original(file, uri, database))
    stores, total = open_stores(settings), Loaded()
    taking = _Taking(original, registry, _find_first_own(stores, registry))
    with open_projector(settings, stores) as projector:
        for loaded in load_events(stores, projector, taking.events()):
            total.stored += loaded.stored
            total.duplicate += loaded.duplicate
    print(
        f"imported {total.stored:,}, already there {total.duplicate:,}, "
        f"not understood {taking.odd:,}, left out {taking.late:,} of a time from which this server "
        "has its own",
        file=sys.stderr,
    )


class _Taking:
    """Turns rows into events; `odd` were not understood, `late` are of our own time."""

    def __init__(
        self, original: dict[str, OriginalRows], registry: str, until: datetime | None
    ) -> None:
        self._original = original
        self._registry = registry
        self._until = until
        self._pushed: set[tuple[str, str | None]] = set()
        self.odd = 0
        self.late = 0

    def events(self) -> Iterator[Event]:
        """The events of all records, then the pushes of tags of which there is no record."""
        if rows := self._original.get(RECORDS):
            yield from self._in_time(self._parse(rows, parse_record))
        if rows := self._original.get(TAGS):
            pushes = self._parse(rows, parse_tag_row)
            yield from self._in_time(
                push for push in pushes if (push.repository, push.tag) not in self._pushed
            )

    def _parse(self, rows: OriginalRows, parse: Parse) -> Iterator[Event]:
        now = datetime.now(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        for row in tqdm(rows.find_all(), rows.where, rows.count(), unit="row", disable=None):
            try:
                event = parse(row, self._registry, now)
            except (InvalidEvent, InvalidReference) as error:
                self.odd += 1
                tqdm.write(f"{rows.where}: {row.id}: {error}", sys.stderr)
                continue
            yield event

    def _in_time(self, events: Iterable[Event]) -> Iterator[Event]:
        """Those before our own: what both have seen would count twice."""
        for event in events:
            if event.action == "push":
                self._pushed.add((event.repository, event.tag))
            if self._until and event.timestamp >= self._until:
                self.late += 1
            else:
                yield event


def _find_first_own(stores: Stores, registry: str) -> datetime | None:
    """When the first event of a registry happened that came here itself."""
    own = (event for event in stores.events.iterate() if not is_taken_over(event))
    return next((event.timestamp for event in own if event.registry == registry), None)
