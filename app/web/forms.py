"""The forms: sign-in, and the filters that pages, exports and API share.

A filter form is read from the query string. `query()` of a valid one gives the store's query; the
names of the fields are the names of the API's parameters.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from flask_wtf import FlaskForm
from werkzeug.datastructures import MultiDict
from wtforms import (
    BooleanField,
    Field,
    Form,
    IntegerField,
    PasswordField,
    SelectField,
    StringField,
    TextAreaField,
)
from wtforms.fields.choices import SelectChoice
from wtforms.validators import InputRequired, Length, NumberRange, Optional, ValidationError

from app.analysis.explain import parse_entry
from app.analysis.unused import USERS, UnusedQuery
from app.errors import InvalidQuery, InvalidReference
from app.migration.advice import ADVICE
from app.rules.clients import CLIENTS, OWN_CLIENT
from app.rules.events import ACTIONS, MAX_ACTOR_LENGTH
from app.rules.kinds import KINDS
from app.rules.references import MAX_REPOSITORY_LENGTH, parse_digest
from app.store.catalogue import CatalogueQuery
from app.store.events import CONTENT, NONE, RecordQuery
from app.store.migrations import DRIFT_KINDS, JOB_STATES
from app.store.sign_ins import OUTCOMES
from app.store.usage import UsageQuery

MAX_WILDCARDS = 8  # more make a pattern needlessly slow to match
_DIGEST_START = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:?[A-Za-z0-9=_-]*")


class SignInForm(FlaskForm):
    """User name and password of a registry account."""

    username = StringField("User name", [InputRequired(), Length(max=255)])
    password = PasswordField("Password", [InputRequired(), Length(max=1024)])


class MomentField(Field):
    """A day or a time, UTC unless it names an offset; `data` is aware or None."""

    def __init__(self, label: str, *, is_end: bool = False, **kwargs: Any) -> None:
        super().__init__(label, **kwargs)
        self._is_end = is_end
        self.data: datetime | None = None
        self.text = ""

    def process_formdata(self, valuelist: Sequence[str]) -> None:
        """Read `2026-11-23`, `2026-11-23T18:04` or a full RFC 3339 time.

        As the end of a range, a day counts whole.
        """
        self.text = valuelist[0].strip() if valuelist else ""
        if not self.text:
            return
        try:
            moment = datetime.fromisoformat(self.text.replace(" ", "T", 1))
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            if self._is_end and len(self.text) <= len("2026-11-23"):
                moment += timedelta(days=1)
            self.data = moment.astimezone(UTC)
        except (ValueError, OverflowError):
            raise ValueError(
                "expected a day or a time in UTC, as 2026-11-23 or 2026-11-23T18:04"
            ) from None


class SwitchField(BooleanField):
    """On or off; anything that could mean either is refused."""

    def process_formdata(self, valuelist: Sequence[str]) -> None:
        """Read `1` or `0`; a checkbox sends `y`."""
        text = valuelist[0].strip().lower() if valuelist else ""
        if text not in ("", "0", "1", "n", "y", "no", "yes", "false", "true"):
            raise ValueError("expected 1 or 0")
        self.data = text in ("1", "y", "yes", "true")


class FilterForm(Form):
    """A form read from the query string; wrong values are kept for the page to show."""

    def __init__(self, given: MultiDict[str, str]) -> None:
        super().__init__(given)
        self.is_empty = not any(given.get(field.name, "").strip() for field in self)

    def in_force(self) -> list[tuple[Field, str]]:
        """The fields that narrow the list, each with its value as given."""
        texts = ((field, getattr(field, "text", field.data)) for field in self)
        return [
            (field, "yes" if text is True else str(text))
            for field, text in texts
            if text and text != field.default
        ]

    def check(self) -> None:
        """Raise InvalidQuery naming the first field that is wrong."""
        if not self.validate():
            name, messages = next(iter(self.named_errors().items()))
            raise InvalidQuery(f"{name}: {messages[0]}")

    def named_errors(self) -> dict[str, list[str]]:
        """The messages by field name, as the query string spells it."""
        return {field.name: list(field.errors) for field in self if field.errors}


def _strip(text: str | None) -> str:
    return (text or "").strip()


def _pattern(form: Form, field: Field) -> None:
    if len(field.data) > MAX_REPOSITORY_LENGTH + 129:
        raise ValidationError("longer than any name")
    if sum(field.data.count(wildcard) for wildcard in "*?") > MAX_WILDCARDS:
        raise ValidationError(f"at most {MAX_WILDCARDS} wildcards")


def _text(label: str, *validators: Any, **kwargs: Any) -> StringField:
    return StringField(label, [Length(max=MAX_ACTOR_LENGTH), *validators], [_strip], **kwargs)


def _any_of(values: Sequence[str]) -> list[SelectChoice]:
    return [SelectChoice("", "Any"), *(SelectChoice(value, value) for value in values)]


_SORTS = [SelectChoice("name", "Name"), SelectChoice("pushed", "Last push")]


class RepositoryFilter(FilterForm):
    """Filters of the repository list."""

    q = _text("Repository", _pattern, description="part of a name, ^begin, or a glob: team/*")
    registry = _text("Registry")
    sort = SelectField("Sort by", choices=_SORTS, default="name")

    def query(self) -> CatalogueQuery:
        """The store's query."""
        return CatalogueQuery(
            q=self.q.data, registry=self.registry.data, sort=self.sort.data or "name"
        )


class TagFilter(FilterForm):
    """Filters of the tag list."""

    q = StringField(
        "Repository",
        [_pattern],
        [_strip],
        description="part of a name, ^begin, a glob, or name:tag as in app:1.*",
    )
    tag = _text("Tag", _pattern, description="part of a tag, ^begin, or a glob: 1.*")
    namespace = _text("Namespace", description="as team; - for names without one")
    repository = _text("Exact repository")
    digest = _text("Digest", description="sha256:… or its beginning")
    registry = _text("Registry")
    sort = SelectField("Sort by", choices=_SORTS, default="name")
    since = MomentField("First pushed from (UTC)", name="from")
    until = MomentField("First pushed to (UTC)", name="to", is_end=True)
    deleted = SwitchField("Show deleted tags")

    def validate_until(self, field: Field) -> None:
        """The range must not be empty."""
        if self.since.data and field.data and field.data <= self.since.data:
            raise ValidationError("is not after from")

    def validate_digest(self, field: Field) -> None:
        """A digest may be cut short anywhere."""
        if field.data and not _DIGEST_START.fullmatch(field.data):
            raise ValidationError("expected sha256: and hexadecimal digits, or their beginning")

    def query(self) -> CatalogueQuery:
        """The store's query."""
        digest = self.digest.data
        if digest and ":" not in digest and re.fullmatch("[0-9a-f]{6,}", digest):
            digest = f"sha256:{digest}"
        return CatalogueQuery(
            q=self.q.data,
            tag_pattern=self.tag.data,
            repository=self.repository.data,
            digest=digest,
            registry=self.registry.data,
            sort=self.sort.data or "name",
            since=self.since.data,
            until=self.until.data,
            namespace=_or_empty(self.namespace.data),
            deleted=self.deleted.data,
        )


class AccessFilter(FilterForm):
    """What the explainer is asked."""

    account = StringField(
        "Account", [InputRequired(), Length(max=255)], [_strip], description="as in docker login"
    )
    repository = _text("Repository", InputRequired(), description="the whole name, as team/app")
    address = _text("Client address", description="for entries with ip")
    entry = TextAreaField(
        "What if: an entry that is not saved",
        [Length(max=10_000)],
        [_strip],
        description="JSON; an entry with the same seq is replaced by it",
    )

    def validate_address(self, field: Field) -> None:
        """One address, no network."""
        if field.data:
            try:
                ipaddress.ip_address(field.data)
            except ValueError:
                raise ValidationError("expected an address, as 10.0.0.1") from None

    def validate_entry(self, field: Field) -> None:
        """An entry that docker_auth would take."""
        if field.data:
            try:
                parse_entry(field.data)
            except InvalidQuery as error:
                raise ValidationError(str(error).removeprefix("entry: ")) from None


class SignInFilter(FilterForm):
    """Filters of the sign-in audit."""

    account = _text("Account", description="as it was given")
    address = _text("Address")
    outcome = SelectField("Outcome", choices=_any_of(OUTCOMES), default="")

    def filters(self) -> dict[str, str]:
        """The store's filters."""
        return {field.name: field.data for field in self if field.data}


class RecordFilter(FilterForm):
    """Filters of the record list."""

    action = SelectField(
        "Action",
        choices=_any_of(ACTIONS),
        default="",
    )
    namespace = _text("Namespace", description="as team; - for names without one")
    repository = _text("Repository", description="the whole name, as team/app")
    tag = _text("Tag", description="the whole tag; - for none")
    digest = _text("Digest", description="the whole digest")
    actor = _text("Account", description="whom the registry saw; - for nobody")
    address = _text("Address", description="an address or a network: 10.0.0.0/8")
    client = SelectField(
        "Client",
        choices=[*_any_of(CLIENTS), SelectChoice(OWN_CLIENT, "own (migrations)")],
        default="",
    )
    since = MomentField("From (UTC)", name="from")
    until = MomentField("To (UTC)", name="to", is_end=True)
    registry = _text("Registry")
    kind = SelectField(
        "Kind",
        choices=[*_any_of(KINDS), SelectChoice(CONTENT, "what figures count")],
        default="",
    )
    parts = SwitchField("Show the parts of a pull")

    def validate_digest(self, field: Field) -> None:
        """Records are found by a whole digest."""
        if field.data:
            try:
                parse_digest(field.data)
            except InvalidReference:
                raise ValidationError("expected a whole digest, as sha256:…") from None

    def validate_address(self, field: Field) -> None:
        """An address, or a network whose host bits are ignored."""
        if field.data:
            try:
                ipaddress.ip_network(field.data, strict=False)
            except ValueError:
                raise ValidationError("expected an address or a network, as 10.0.0.0/8") from None

    def validate_until(self, field: Field) -> None:
        """The range must not be empty."""
        if self.since.data and field.data and field.data <= self.since.data:
            raise ValidationError("is not after from")

    def query(self) -> RecordQuery:
        """The store's query."""
        network = self.address.data and ipaddress.ip_network(self.address.data, strict=False)
        return RecordQuery(
            action=self.action.data,
            registry=self.registry.data,
            namespace=self.namespace.data,
            repository=self.repository.data,
            tag=self.tag.data,
            digest=self.digest.data,
            actor=self.actor.data,
            network=network or None,
            client=self.client.data,
            kind=self.kind.data,
            since=self.since.data,
            until=self.until.data,
            parts=self.parts.data,
        )


class JobFilter(FilterForm):
    """Filters of the jobs of a migration."""

    state = SelectField("State", choices=_any_of(JOB_STATES), default="")
    error_class = SelectField("Class", choices=_any_of(list(ADVICE)), default="", name="class")
    repository = _text("Repository", description="the whole name, as team/app")

    def filters(self) -> dict[str, str]:
        """The store's filters."""
        return {
            "state": self.state.data,
            "error_class": self.error_class.data,
            "repository": self.repository.data,
        }


class DriftFilter(FilterForm):
    """Filters of the differences that a verification found."""

    kind = SelectField("Kind", choices=_any_of(DRIFT_KINDS), default="")
    repository = _text("Repository", description="the whole name, as team/app")

    def filters(self) -> dict[str, str]:
        """The store's filters."""
        return {"kind": self.kind.data, "repository": self.repository.data}


PERIODS = {"1": "Today", "2": "2 days", "7": "7 days", "30": "30 days", "90": "90 days"}
DEFAULT_PERIOD = "30"
MAX_PERIOD_DAYS = 1100
DEFAULT_UNUSED_DAYS = 90


class DayField(Field):
    """A day in the zone of the figures; `data` is a date or None."""

    def __init__(self, label: str, **kwargs: Any) -> None:
        super().__init__(label, **kwargs)
        self.data: date | None = None
        self.text = ""

    def process_formdata(self, valuelist: Sequence[str]) -> None:
        """Read `2026-11-23`."""
        self.text = valuelist[0].strip() if valuelist else ""
        if not self.text:
            return
        try:
            self.data = datetime.strptime(self.text, "%Y-%m-%d").date()
            if not 1990 <= self.data.year <= 2200:
                raise ValueError
        except ValueError:
            raise ValueError("expected a day, as 2026-11-23") from None


class UsageFilter(FilterForm):
    """Filters of the figures."""

    days = SelectField(
        "Period",
        choices=[SelectChoice(value, label) for value, label in PERIODS.items()],
        default=DEFAULT_PERIOD,
    )
    first = DayField("From", name="from")
    last = DayField("To", name="to")
    registry = _text("Registry")
    namespace = _text("Namespace", description="as team; - for names without one")
    repository = _text("Repository", description="the whole name, as team/app")
    tag = _text("Tag", description="the whole tag")
    digest = _text("Digest", description="the whole digest")
    client = SelectField("Client", choices=_any_of(CLIENTS), default="")
    actor = _text("Account", description="whom the registry saw; - for nobody")
    supplements = SwitchField("Count signatures, attestations and SBOMs too")

    def validate_last(self, field: Field) -> None:
        """The period must not be empty or absurdly long."""
        if self.first.data and field.data:
            if field.data < self.first.data:
                raise ValidationError("is before from")
            if (field.data - self.first.data).days >= MAX_PERIOD_DAYS:
                raise ValidationError(f"a period has at most {MAX_PERIOD_DAYS} days")

    def period(self, today: date) -> tuple[date, date]:
        """The first and the last day, both included."""
        length = timedelta(days=int(self.days.data or DEFAULT_PERIOD) - 1)
        if self.first.data:
            longest = self.first.data + timedelta(days=MAX_PERIOD_DAYS - 1)
            return self.first.data, self.last.data or min(max(today, self.first.data), longest)
        last = self.last.data or today
        return last - length, last

    def query(self, first: date, last: date) -> UsageQuery:
        """The store's query for some days."""
        return UsageQuery(
            first=first,
            last=last,
            registry=self.registry.data or None,
            namespace=_or_empty(self.namespace.data),
            repository=self.repository.data or None,
            tag=self.tag.data or None,
            digest=self.digest.data or None,
            actor=_or_empty(self.actor.data),
            clients=frozenset({self.client.data}) if self.client.data else None,
            supplements=self._counts_everything,
        )

    @property
    def _counts_everything(self) -> bool:
        """Whether supplements count: where one is named, it is asked for."""
        return bool(self.supplements.data or self.tag.data or self.digest.data)

    def record_filters(self) -> dict[str, str]:
        """The same filters for the list of records, but for the period."""
        names = ("registry", "namespace", "repository", "tag", "digest", "client", "actor")
        given = {name: value for name in names if (value := self[name].data)}
        return given if self._counts_everything else {**given, "kind": CONTENT}


def _or_empty(text: str | None) -> str | None:
    return "" if text == NONE else text or None


class UnusedFilter(FilterForm):
    """Filters of the unused tags."""

    days = IntegerField(
        "Not used for days",
        [Optional(), NumberRange(1, MAX_PERIOD_DAYS)],
        default=DEFAULT_UNUSED_DAYS,
        description=f"1 to {MAX_PERIOD_DAYS}",
    )
    registry = _text("Registry")
    namespace = _text("Namespace", description="as team; - for names without one")
    repository = _text("Repository", description="the whole name, as team/app")
    clients = _text(
        "Clients that count",
        description="as docker,containerd; if empty all but scanner, replication and updater",
    )

    def validate_clients(self, field: Field) -> None:
        """Known classes."""
        for name in self.client_classes():
            if name not in CLIENTS:
                raise ValidationError(f"no such client: {name[:40]}; known: {', '.join(CLIENTS)}")

    def client_classes(self) -> list[str]:
        """The classes that are named; none if all count that use images."""
        return [name.strip() for name in self.clients.data.split(",") if name.strip()]

    def query(self) -> UnusedQuery:
        """What is asked for."""
        return UnusedQuery(
            days=self.days.data or DEFAULT_UNUSED_DAYS,
            clients=frozenset(self.client_classes()) or USERS,
            registry=self.registry.data or None,
            namespace=_or_empty(self.namespace.data),
            repository=self.repository.data or None,
        )


class HistoryFilter(FilterForm):
    """Whose history is asked for: one tag's."""

    repository = _text("Repository", InputRequired(), description="the whole name, as team/app")
    tag = _text("Tag", InputRequired(), description="the whole tag")
    registry = _text("Registry")


class RecallFilter(FilterForm):
    """What to recall: a digest, or a tag between two times."""

    digest = _text("Digest", description="the whole digest")
    repository = _text("or repository", description="the whole name, as team/app")
    tag = _text("and tag")
    since = MomentField("which pointed to it from (UTC)", name="from")
    until = MomentField("to (UTC)", name="to", is_end=True)
    registry = _text("Registry")

    def validate_digest(self, field: Field) -> None:
        """Whole, and not beside a tag, nor a time: whoever pulled it at any time has it."""
        if field.data:
            if self.repository.data or self.tag.data:
                raise ValidationError("give a digest, or a repository and tag")
            if self.since.data or self.until.data:
                raise ValidationError(
                    "from and to are when a tag pointed to it: give a repository and tag"
                )
            try:
                parse_digest(field.data)
            except InvalidReference:
                raise ValidationError("expected a whole digest, as sha256:…") from None
        elif not self.repository.data and not self.tag.data:
            raise ValidationError("is missing; or give a repository and tag")

    def validate_tag(self, field: Field) -> None:
        """A repository alone is not enough."""
        if self.repository.data and not field.data:
            raise ValidationError("is missing")

    def validate_repository(self, field: Field) -> None:
        """Nor is a tag."""
        if self.tag.data and not field.data:
            raise ValidationError("is missing")

    def validate_until(self, field: Field) -> None:
        """The range must not be empty."""
        if self.since.data and field.data and field.data <= self.since.data:
            raise ValidationError("is not after from")
