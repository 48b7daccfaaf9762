"""All MongoDB: connection, indexes, one class for each kind of data.

Value types go out, never documents or cursors. Every class raises StoreUnavailable, and nothing
else, when the database is away.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pymongo
from bson import Int64
from bson.codec_options import DatetimeConversion, TypeDecoder, TypeRegistry
from pymongo import MongoClient, ReadPreference
from pymongo.database import Database
from pymongo.errors import InvalidURI, PyMongoError
from pymongo.read_concern import ReadConcern

from app.embedded import recorded_uri
from app.errors import ConfigError, StartupError, StoreUnavailable
from app.rules.tokens import MAX_LIFETIME, MAX_LIFETIME_UNKNOWN
from app.rules.usage import Calendar
from app.settings import DockerAuth, Settings
from app.store.accounts import AccountStore
from app.store.catalogue import Catalogue, CatalogueWriter
from app.store.checks import CheckStore
from app.store.errors import translate_errors
from app.store.events import EventStore
from app.store.explaining import QueryListener, SentQuery, explain
from app.store.inbox import DURABLE, InboxStore
from app.store.leases import LeaseStore
from app.store.manifests import ManifestStore
from app.store.migrations import MigrationStore
from app.store.paging import Document
from app.store.query_plans import QueryPlan
from app.store.rejected import RejectedStore
from app.store.schema import SchemaStore
from app.store.sharding import Sharding
from app.store.sign_ins import SignInStore
from app.store.state import DatabaseState, create_whole_indexes, find_state
from app.store.tokens import TokenStore
from app.store.transfer import Transfer
from app.store.usage import DayStore, UsageStore
from app.store.wiring import WiringStore

# A registry gives up after a second or so and sends again; a person waits a little longer.
SERVER_SELECTION_TIMEOUT_MS = 1500
CONNECT_TIMEOUT_MS = 1500
# Of a command. pymongo also breaks off all that goes on where the database does not say hello
# within this time, which one on a busy machine does not.
PATIENT_TIMEOUT_MS = 20_000
INDEX_CONFLICTS = (85, 86)  # IndexOptionsConflict, IndexKeySpecsConflict


@translate_errors
class Stores:
    """The stores that one program shares; safe for threads, not across a fork."""

    def __init__(
        self,
        database: Database[Document],
        accounts_database: Database[Document] | None = None,
        *,
        docker_auth: DockerAuth | None = None,
        time_zone: str = "UTC",
        retention_days: int = 0,
        is_embedded: bool = False,
    ) -> None:
        self._database = database
        self._is_embedded = is_embedded
        self._people = people = database if accounts_database is None else accounts_database
        self.events = EventStore(database["events"], names_shard=not is_embedded)
        self.catalogue = Catalogue(database)
        self.catalogue_writer = CatalogueWriter(database)
        self.manifests = ManifestStore(database["manifests"])
        self.checks = CheckStore(database)
        self.inbox = InboxStore(database["inbox"], database["progress"], is_embedded=is_embedded)
        self.transfer = Transfer(database)
        self.sharding = Sharding(database)
        self.rejected = RejectedStore(database["rejected_events"])
        self.wiring = WiringStore(database)
        self.sign_ins = SignInStore(database["sign_ins"])
        is_known = docker_auth is None or not docker_auth.token_url
        self.tokens = TokenStore(
            database["api_tokens"], MAX_LIFETIME if is_known else MAX_LIFETIME_UNKNOWN
        )
        self.days = DayStore(database, Calendar(time_zone), retention_days)
        self.usage = UsageStore(database, self.days)
        self.leases = LeaseStore(database["leases"])
        self.schema = SchemaStore(database)
        self.migrations = MigrationStore(database)
        self.accounts = AccountStore(people, docker_auth or DockerAuth())

    def ensure_indexes(self) -> None:
        """Create every index; idempotent, at start-up.

        Raises:
            StartupError: somebody made one of them with another name or other options.
        """
        try:
            self._create_indexes()
        except StoreUnavailable as error:
            if getattr(error.__cause__, "code", None) in INDEX_CONFLICTS:
                reason = str(error.__cause__).partition(", full error: ")[0]
                raise StartupError(f"drop the index that is in the way: {reason}") from error
            raise

    def _create_indexes(self) -> None:
        if self._is_embedded:
            create_whole_indexes(self._database, _create_indexes)
            return
        for store in (
            self.events,
            self.catalogue,
            self.rejected,
            self.sign_ins,
            self.tokens,
            self.days,
            self.checks,
            self.wiring,
        ):
            store.ensure_indexes()
        self.migrations.ensure_indexes()

    def check(self) -> None:
        """Write and read one document, or raise StoreUnavailable: a ping proves neither."""
        health = self._database["health"]
        stamp = time.time()
        health.update_one({"_id": "check"}, {"$set": {"at": stamp}}, upsert=True)
        if health.find_one({"_id": "check"}) is None:
            raise StoreUnavailable("the database does not return what was written")

    def find_state(self) -> DatabaseState:
        """Version, schema, indexes and disk of the database."""
        return find_state(self._database, _create_indexes, self.schema.find())

    def explain(self, query: SentQuery) -> QueryPlan:
        """How the database carries out a query that a listener heard."""
        return explain(self._database, query)

    def close(self) -> None:
        """Close the connections."""
        for database in (self._database, self._people):
            database.client.close()


def _create_indexes(database: Database[Document]) -> None:
    Stores(database).ensure_indexes()


def deadline(seconds: float) -> contextlib.AbstractContextManager[Any]:
    """Bound all database work inside the `with` block; what takes longer is StoreUnavailable."""
    return pymongo.timeout(seconds)


def connect(
    settings: Settings,
    uri: str | None = None,
    *,
    timeout_ms: int = CONNECT_TIMEOUT_MS,
    listener: QueryListener | None = None,
) -> Stores:
    """Stores on the configured databases; connects lazily, so this never waits.

    `uri` replaces `mongodb.uri`; without it `embedded` is the one that runs on `data_dir`. A
    connection may take `timeout_ms`. A `listener` hears what is sent.

    Raises:
        ConfigError: a URI that cannot be read.
        StartupError: the embedded database does not run.
    """
    if uri is None and settings.is_embedded:
        uri = recorded_uri(Path(settings.mongodb.data_dir))
    client = _client(uri or settings.mongodb.uri, "mongodb.uri", timeout_ms, listener)
    there = settings.docker_auth
    people = _client(there.uri, "docker_auth.uri", timeout_ms) if there.uri else client
    primary = ReadPreference.PRIMARY  # what was just written is read, whatever the URI prefers
    return Stores(
        # An envelope goes from the inbox when all of it is on record: on shards, each of which
        # fails over by itself, only if what came before is as durable. And what is decided (a
        # migration is closed, events are removed) may hang on nothing that a failover takes back.
        client.get_database(
            settings.mongodb.database,
            read_preference=primary,
            read_concern=ReadConcern("majority"),
            write_concern=DURABLE,
        ),
        people.get_database(
            there.database or settings.mongodb.database,
            read_preference=primary,
            # A year that Python has not makes one entry unreadable, and not all of them.
            codec_options=people.codec_options.with_options(
                datetime_conversion=DatetimeConversion.DATETIME_AUTO
            ),
        ),
        docker_auth=there,
        time_zone=settings.analysis.time_zone,
        retention_days=settings.notifications.retention_days,
        is_embedded=settings.is_embedded,
    )


class _PlainInt(TypeDecoder):
    """Numbers above 2^31 - 1 as int, and not as the bson.Int64 that no encoder of ours knows."""

    bson_type = Int64

    def transform_bson(self, value: Any) -> int:
        return int(value)


TYPES = TypeRegistry([_PlainInt()])


def _client(
    uri: str, key: str, timeout_ms: int, listener: QueryListener | None = None
) -> MongoClient[Document]:
    try:
        return MongoClient(
            uri,
            tz_aware=True,
            type_registry=TYPES,
            connect=False,
            serverSelectionTimeoutMS=SERVER_SELECTION_TIMEOUT_MS,
            connectTimeoutMS=timeout_ms,
            appname="registry-notification-server",
            event_listeners=[listener] if listener else [],
        )
    except (InvalidURI, PyMongoError, ValueError) as error:
        # The message may quote the URI with its password.
        raise ConfigError(f"{key}: not a MongoDB URI ({type(error).__name__})") from None
