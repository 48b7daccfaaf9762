"""What a registry sends, turned into events worth keeping. Pure: no Flask, no MongoDB.

Sources: distribution's notification format (docs "Work with notifications",
`notifications/event.go` 2.8 and 3.x), GitLab's `rename` (container-registry, "Event notifications
spec") and Azure's bare events ("Azure Container Registry webhook reference"). Parsing is lenient
where a registry differs and strict where a value would become a key: names, tags and digests follow
the OCI grammar or the event is rejected, whole, with its reason.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from app.errors import InvalidEnvelope, InvalidEvent, InvalidReference
from app.rules.addresses import parse_address
from app.rules.clients import client_class
from app.rules.envelopes import MAX_DEPTH, split_events
from app.rules.kinds import MANIFEST_TYPES, is_blob_type, kind_of
from app.rules.references import (
    is_digest,
    namespace_of,
    parse_digest,
    parse_repository,
    parse_tag,
)
from app.rules.sizes import MAX_CONTENT_SIZE
from app.rules.text import clean_text

MAX_EVENTS = 10_000  # of one envelope; distribution sends one
MAX_ID_LENGTH = 255
MAX_ACTOR_LENGTH = 255
MAX_USER_AGENT_LENGTH = 512
MAX_MEDIA_TYPE_LENGTH = 255
MAX_REFERENCES = 10_000
MAX_REJECTED_CHARACTERS = 64 * 1024  # that are kept of an event
INT64_MAX = 2**63 - 1
EARLIEST = datetime(2013, 1, 1, tzinfo=UTC)  # no registry sent events before
MAX_AHEAD = timedelta(days=1)

Action = Literal["push", "pull", "check", "delete", "mount", "rename"]
ACTIONS: tuple[Action, ...] = get_args(Action)


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a child of an index runs on (OCI image-spec, "Image Index")."""

    os: str = ""
    architecture: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """One entry of `target.references`: a config, a layer, or a child of an index."""

    digest: str
    size: int = 0
    media_type: str = ""
    platform: Platform | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded event. `None` means that the registry did not say."""

    id: str  # the event's own id; another registry than `default` puts its name before it
    registry: str  # name from config.yml of the registry that sent it
    action: Action  # push, pull, check (a HEAD), delete, mount or rename
    namespace: str  # the repository up to its last slash
    repository: str
    tag: str | None = None
    tag_from: Literal["event", "paired", "history"] | None = None  # who told the tag
    digest: str | None = None
    part_of: str | None = None  # id of the event that stands for what the client did, if another
    parent: str | None = None  # digest of the index whose pull or push this is part of
    media_type: str = ""
    kind: str = "image"
    size: int | None = None  # bytes of the manifest, as the registry said
    content_size: int | None = None  # of a push: with what it names, each once; an index its own
    actor: str = ""  # whom the registry saw; "" without authentication
    address: str = ""  # the client's, without port
    client: str = "other"  # client class from the user agent
    user_agent: str = ""
    timestamp: datetime  # when it happened, UTC, milliseconds
    position: str  # timestamp in fixed width + "-" + id: lists are ordered and paged by it
    received_at: datetime  # when it came here, UTC, milliseconds
    source: str = ""  # the registry node that generated the event
    instance: str = ""  # changes with every start of that node
    request_id: str = ""
    host: str = ""  # the name, perhaps with a port, by which the client called the registry
    # Of a mount: where the blob came from. Of a rename: the name until then of `repository`, and so
    # of all whose names begin with it and a slash.
    from_repository: str | None = None
    references: tuple[Descriptor, ...] = ()


class Rejected(msgspec.Struct, frozen=True):
    """An event that could not be understood: why, and its text, cut at 64 Ki characters."""

    id: str  # of the content, so that a redelivery is the same document
    registry: str
    reason: str
    body: str
    received_at: datetime  # UTC


class Kept(NamedTuple):
    """The text of an event as it came, and the event; None where that was not understood."""

    text: bytes
    event: Event | None


class Envelope(msgspec.Struct):
    """What one request body held; `ignored` counts blob transfers and pings.

    `kept` are all other events, in the order in which they came.
    """

    events: list[Event]
    rejected: list[Rejected]
    ignored: int = 0
    kept: list[Kept] = []


class _Rename(msgspec.Struct, frozen=True):
    old: str = msgspec.field(name="from")
    new: str = msgspec.field(name="to")


class _Target(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str = ""
    size: int | None = None
    length: int | None = None
    digest: str = ""
    repository: str = ""
    from_repository: str = ""
    url: str = ""
    tag: str = ""
    artifact_type: str = ""
    references: tuple[Descriptor, ...] = ()
    renaming: _Rename | None = msgspec.field(default=None, name="rename")


class _Request(msgspec.Struct, frozen=True):
    id: str = ""
    addr: str = ""
    host: str = ""
    method: str = ""
    useragent: str = ""


class _Actor(msgspec.Struct, frozen=True):
    name: str = ""


class _Source(msgspec.Struct, frozen=True):
    addr: str = ""
    instance_id: str = msgspec.field(default="", name="instanceID")


class _WireEvent(msgspec.Struct):
    id: str
    timestamp: str
    action: str
    target: _Target = _Target()
    request: _Request = _Request()
    actor: _Actor = _Actor()
    source: _Source = _Source()


_decode_event = msgspec.json.Decoder(_WireEvent).decode


def parse_envelope(body: bytes, registry: str, received_at: datetime) -> Envelope:
    """Parse every event of a notification envelope on its own.

    A broken event ends up in `rejected` and never touches its neighbours. A bare event, as Azure
    sends it, is an envelope of one.

    Raises:
        InvalidEnvelope: the body is not JSON, has no `events` list, or one of more than 10,000.
    """
    try:
        raw_events = split_events(body)
    except msgspec.DecodeError as error:
        raise InvalidEnvelope(f"not a notification envelope: {error}") from None
    except RecursionError:
        rejected = reject(body, registry, "nested too deeply", received_at)
        return Envelope([], [rejected], kept=[Kept(body, None)])
    if len(raw_events) > MAX_EVENTS:
        raise InvalidEnvelope(f"events: {len(raw_events)} in one envelope, at most {MAX_EVENTS}")
    envelope = Envelope([], [])
    for raw in map(bytes, raw_events):
        try:
            event = _parse_event(raw, registry, received_at)
        except (InvalidEvent, InvalidReference) as error:
            rejected = reject(raw, registry, str(error), received_at)
            cut = rejected.body[:MAX_REJECTED_CHARACTERS]
            envelope.rejected.append(msgspec.structs.replace(rejected, body=cut))
            envelope.kept.append(Kept(raw, None))
            continue
        if event:
            envelope.events.append(event)
            envelope.kept.append(Kept(raw, event))
        else:
            envelope.ignored += 1
    return envelope


def join_events(events: Iterable[Kept]) -> bytes:
    """The body of an envelope that holds these events."""
    return b'{"events":[' + b",".join(event.text for event in events) + b"]}"


def event_key(registry: str, event_id: str) -> str:
    """The id an event is stored under: unique across registries, and the same on redelivery."""
    return event_id if registry == "default" else f"{registry}:{event_id}"


def position_at(moment: datetime) -> str:
    """The lower bound of all positions at or after `moment` (aware): positions compare as text."""
    local = moment.astimezone(UTC).replace(tzinfo=None)
    return local.isoformat(timespec="microseconds") + "000Z"


_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(?::[0-9]{1,5})?", re.ASCII)

_TIMESTAMP = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d{2}:\d{2})",
    re.ASCII,
)


def parse_timestamp(text: str) -> tuple[datetime, str]:
    """An RFC 3339 time as (UTC at millisecond precision, UTC in fixed width with nanoseconds).

    Raises:
        InvalidEvent: not RFC 3339, or outside the years 1 to 9999 once in UTC.
    """
    match = _TIMESTAMP.fullmatch(text)
    if not match:
        raise InvalidEvent(f"timestamp: not RFC 3339: {text[:40]!r}")
    nanoseconds = (match[3] or "").ljust(9, "0")
    try:
        offset = UTC if match[4] in "Zz" else _parse_offset(match[4])
        local = datetime.fromisoformat(f"{match[1]}T{match[2]}").replace(tzinfo=offset)
        moment = local.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidEvent(f"timestamp: no such time: {text[:40]!r}") from None
    fixed = f"{moment.replace(tzinfo=None).isoformat()}.{nanoseconds}Z"
    return moment.replace(microsecond=int(nanoseconds[:3]) * 1000), fixed


def _parse_offset(text: str) -> timezone:
    hours, minutes = int(text[1:3]), int(text[4:6])
    if minutes > 59:
        raise ValueError("minutes of an offset")
    delta = timedelta(hours=hours, minutes=minutes)
    return timezone(-delta if text[0] == "-" else delta)


def reject(raw: bytes, registry: str, reason: str, received_at: datetime) -> Rejected:
    """What is kept of an event, or an envelope, that was not understood."""
    digest = hashlib.sha256(registry.encode() + b"\0" + raw).hexdigest()
    text = raw.decode("utf-8", "replace")
    return Rejected(digest, registry, clean_text(reason, 500), text, received_at)


def _parse_event(raw: bytes, registry: str, received_at: datetime) -> Event | None:
    """One event, or None for what is not recorded: transfers of blobs, and a ping."""
    wire = _decode(raw)
    target = wire.target
    if wire.action == "ping":  # Azure tries out a webhook
        return None
    action = _parse_action(wire)
    is_blob = _is_blob(action, target)
    if is_blob and action != "mount":
        return None
    check_id(wire.id)
    repository, from_repository = _parse_repositories(action, target)
    tag, digest = _parse_reference(action, target)
    timestamp, fixed = _parse_moment(wire.timestamp, received_at)
    key = event_key(registry, wire.id)
    references = _parse_references(target)
    media_types = [reference.media_type for reference in references]
    kind = "blob" if is_blob else kind_of(target.media_type, target.artifact_type, media_types, tag)
    size = _parse_size(target)
    user_agent = clean_text(wire.request.useragent, MAX_USER_AGENT_LENGTH)
    return Event(
        id=key,
        registry=registry,
        action=action,
        namespace=namespace_of(repository),
        repository=repository,
        tag=tag,
        tag_from="event" if tag else None,
        digest=digest,
        media_type=clean_text(target.media_type, MAX_MEDIA_TYPE_LENGTH),
        kind=kind,
        size=size,
        content_size=_content_size(kind, size, references) if action == "push" else None,
        actor=clean_text(wire.actor.name, MAX_ACTOR_LENGTH),
        address=parse_address(wire.request.addr),
        client=client_class(user_agent),
        user_agent=user_agent,
        timestamp=timestamp,
        position=f"{fixed}-{key}",
        received_at=received_at.replace(microsecond=received_at.microsecond // 1000 * 1000),
        source=clean_text(wire.source.addr, MAX_ACTOR_LENGTH),
        instance=clean_text(wire.source.instance_id, MAX_ACTOR_LENGTH),
        request_id=clean_text(wire.request.id, MAX_ACTOR_LENGTH),
        host=wire.request.host if _HOST.fullmatch(wire.request.host) else "",
        from_repository=from_repository,
        references=references,
    )


def _decode(raw: bytes) -> _WireEvent:
    try:
        return _decode_event(raw)
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(f"not an event: {error}") from None
    try:
        return msgspec.convert(_mend(msgspec.json.decode(raw), MAX_DEPTH), _WireEvent)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(f"not an event: {error}") from None


def _mend(value: Any, depth: int) -> Any:
    """`value` as Go would have written it: relays in other languages add nulls and write 528.0."""
    if isinstance(value, dict) and depth:
        members = value.items()
        return {name: _mend(member, depth - 1) for name, member in members if member is not None}
    if isinstance(value, list) and depth:
        return [_mend(element, depth - 1) for element in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def check_id(event_id: str) -> None:
    """Raise InvalidEvent for an id under which nothing can be kept."""
    if not event_id or len(event_id) > MAX_ID_LENGTH or not event_id.isprintable():
        raise InvalidEvent("id: empty, unprintable or longer than 255 characters")


def _parse_action(wire: _WireEvent) -> Action:
    match wire.action:
        case "pull":
            return "check" if wire.request.method.upper() == "HEAD" else "pull"
        case "push" | "delete" | "mount" | "rename":
            return wire.action
        case other:
            known = "push, pull, mount, delete or rename"
            raise InvalidEvent(f"action: expected {known}, got {other[:40]!r}")


def _parse_repositories(action: Action, target: _Target) -> tuple[str, str | None]:
    """The repository, and the one it was before or the blob came from.

    GitLab renames a project's path (`name`) or moves it (`namespace`); both give whole paths, and
    take along what is beneath them.
    """
    if action == "rename":
        if not target.renaming:
            raise InvalidEvent("target.rename: is missing from a rename")
        return parse_repository(target.renaming.new), parse_repository(target.renaming.old)
    origin = parse_repository(target.from_repository) if target.from_repository else None
    return parse_repository(target.repository), origin


def _parse_reference(action: Action, target: _Target) -> tuple[str | None, str | None]:
    """Tag and digest; a rename has neither, and only a delete may do without a digest."""
    if action == "rename":
        return None, None
    tag = _find_tag(target)
    digest = parse_digest(target.digest) if target.digest else None
    if not digest and action != "delete":
        raise InvalidEvent(f"target.digest: is missing from a {action}")
    return tag, digest


def _parse_moment(text: str, received_at: datetime) -> tuple[datetime, str]:
    """As `parse_timestamp`, and not so far off that only a wrong clock can mean it."""
    timestamp, fixed = parse_timestamp(text)
    check_moment(timestamp, received_at)
    return timestamp, fixed


def check_moment(timestamp: datetime, received_at: datetime) -> None:
    """Raise InvalidEvent for a time so far off that only a wrong clock can mean it."""
    if not EARLIEST <= timestamp <= received_at + MAX_AHEAD:
        raise InvalidEvent(
            f"timestamp: {timestamp.isoformat()[:19]} is before 2013 or more than a day ahead of "
            "this server: set the clock of the registry's host"
        )


def _url_parts(target: _Target) -> tuple[str, str]:
    """The last two parts of the target's URL path: `manifests` or `blobs`, and the reference."""
    parts = target.url.split("?")[0].rsplit("/", 2)
    return (parts[1], parts[2]) if len(parts) == 3 else ("", "")


def _is_blob(action: Action, target: _Target) -> bool:
    if action in ("delete", "rename"):
        return False
    if action == "mount":
        return target.media_type not in MANIFEST_TYPES
    if is_blob_type(target.media_type):
        return True
    if target.tag:
        return False
    where = _url_parts(target)[0]
    if where in ("blobs", "manifests"):
        return where == "blobs"
    return bool(target.media_type) and target.media_type not in MANIFEST_TYPES


def _find_tag(target: _Target) -> str | None:
    """The event's tag; before distribution 2.4 it stood only in the URL."""
    if target.tag:
        return parse_tag(target.tag)
    where, reference = _url_parts(target)
    if where == "manifests" and reference and not is_digest(reference):
        return parse_tag(reference)
    return None


def _parse_size(target: _Target) -> int | None:
    size = target.size if target.size is not None else target.length
    if size is not None and not 0 <= size <= INT64_MAX:
        raise InvalidEvent("target.size: not between 0 and 2^63-1")
    return size


def _content_size(kind: str, size: int | None, references: tuple[Descriptor, ...]) -> int:
    """Bytes of a pushed manifest and of what it names, each digest once; an index has its own."""
    contents = {} if kind == "index" else {each.digest: each.size for each in references}
    return min((size or 0) + sum(contents.values()), MAX_CONTENT_SIZE)


def _parse_references(target: _Target) -> tuple[Descriptor, ...]:
    if len(target.references) > MAX_REFERENCES:
        raise InvalidEvent(f"target.references: more than {MAX_REFERENCES}")
    for index, reference in enumerate(target.references):
        parse_digest(reference.digest)
        if not 0 <= reference.size <= INT64_MAX:
            raise InvalidEvent(f"target.references[{index}].size: not between 0 and 2^63-1")
    return tuple(
        Descriptor(
            reference.digest,
            reference.size,
            clean_text(reference.media_type, MAX_MEDIA_TYPE_LENGTH),
            _clean_platform(reference.platform),
        )
        for reference in target.references
    )


def _clean_platform(platform: Platform | None) -> Platform | None:
    if platform is None:
        return None
    return Platform(
        clean_text(platform.os, 100),
        clean_text(platform.architecture, 100),
        clean_text(platform.variant, 100),
    )
