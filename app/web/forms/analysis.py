"""Filters of the records, the figures and what is made of them."""

from __future__ import annotations

from datetime import date, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network

from flask_babel import gettext
from flask_babel import lazy_gettext as _
from wtforms import Field, IntegerField
from wtforms.fields.choices import SelectChoice
from wtforms.validators import NumberRange, Optional, ValidationError

from app.analysis.storage import StorageQuery
from app.analysis.unused import USERS, UnusedQuery
from app.errors import InvalidReference
from app.rules.addresses import parse_ip
from app.rules.clients import CLIENTS, OWN_CLIENT
from app.rules.events import ACTIONS
from app.rules.kinds import KINDS
from app.rules.references import parse_digest
from app.store.events import CONTENT, RecordQuery
from app.store.usage import UsageQuery
from app.web.forms.fields import (
    ChoiceField,
    DayField,
    FilterForm,
    MomentField,
    PeriodField,
    SwitchField,
    any_of,
    days_long,
    digest_start,
    or_empty,
    text_field,
    whole_digest,
)

PERIODS = {"1": _("Today"), **{str(days): days_long(days) for days in (2, 7, 30, 90)}}
ACTION, CLIENT = "action", "client"  # what bars are stacked by
DEFAULT_PERIOD = "30"
MAX_PERIOD_DAYS = 1100
DEFAULT_UNUSED_DAYS = 90
CAME = "came"  # what namespaces are ordered by, where nothing is chosen


class RecordFilter(FilterForm):
    """Filters of the record list."""

    action = ChoiceField(
        _("Action"),
        choices=any_of(ACTIONS),
        default="",
    )
    namespace = text_field(_("Namespace"), description=_("as team; - for names without one"))
    repository = text_field(_("Repository"), description=_("the whole name, as team/app"))
    tag = text_field(_("Tag"), description=_("the whole tag; - for none"))
    digest = text_field(
        _("Digest"), digest_start, description=_("whole, or 6 digits of it or more")
    )
    actor = text_field(_("Account"), description=_("whom the registry saw; - for nobody"))
    address = text_field(_("Address"), description=_("an address or a network: 10.0.0.0/8"))
    client = ChoiceField(
        _("Client"),
        choices=[*any_of(CLIENTS), SelectChoice(OWN_CLIENT, _("own (migrations)"))],
        default="",
    )
    since = MomentField(_("From (UTC)"), name="from")
    until = MomentField(_("To (UTC)"), name="to", is_end=True)
    registry = text_field(_("Registry"))
    kind = ChoiceField(
        _("Kind"),
        choices=[*any_of(KINDS), SelectChoice(CONTENT, _("what figures count"))],
        default="",
    )
    parts = SwitchField(_("Show the parts of pulls and pushes"))

    def validate_address(self, field: Field) -> None:
        """An address, or a network whose host bits are ignored."""
        if field.data:
            try:
                _parse_network(field.data)
            except ValueError:
                raise ValidationError(
                    gettext("expected an address or a network, as 10.0.0.0/8")
                ) from None

    def validate_until(self, field: Field) -> None:
        """The range must not be empty."""
        if self.since.data and field.data and field.data <= self.since.data:
            raise ValidationError(gettext("is not after from"))

    def query(self) -> RecordQuery:
        """The store's query."""
        return RecordQuery(
            action=self.action.data,
            registry=self.registry.data,
            namespace=self.namespace.data,
            repository=self.repository.data,
            tag=self.tag.data,
            digest=whole_digest(self.digest.data),
            actor=self.actor.data,
            network=_parse_network(self.address.data) if self.address.data else None,
            client=self.client.data,
            kind=self.kind.data,
            since=self.since.data,
            until=self.until.data,
            parts=self.parts.data,
        )


def _parse_network(text: str) -> IPv4Network | IPv6Network:
    """A network, or an address as whatever names it; ValueError if it is neither."""
    return ip_network(parse_ip(text) or text, strict=False)


class UsageFilter(FilterForm):
    """Filters of the figures."""

    days = PeriodField(
        _("Period"),
        longest=MAX_PERIOD_DAYS,
        choices=[SelectChoice(value, label) for value, label in PERIODS.items()],
        default=DEFAULT_PERIOD,
    )
    first = DayField(_("From"), name="from")
    last = DayField(_("To"), name="to")
    registry = text_field(_("Registry"))
    namespace = text_field(_("Namespace"), description=_("as team; - for names without one"))
    repository = text_field(_("Repository"), description=_("the whole name, as team/app"))
    tag = text_field(_("Tag"), description=_("the whole tag"))
    digest = text_field(_("Digest"), description=_("the whole digest"))
    client = ChoiceField(_("Client"), choices=any_of(CLIENTS), default="")
    actor = text_field(_("Account"), description=_("whom the registry saw; - for nobody"))
    supplements = SwitchField(_("Count signatures, attestations and SBOMs too"))

    def validate_last(self, field: Field) -> None:
        """The period must not be empty or absurdly long."""
        if self.first.data and field.data:
            if field.data < self.first.data:
                raise ValidationError(gettext("is before from"))
            if (field.data - self.first.data).days >= MAX_PERIOD_DAYS:
                raise ValidationError(
                    gettext("a period has at most %(most)s days", most=MAX_PERIOD_DAYS)
                )

    def period(self, today: date) -> tuple[date, date]:
        """The first and the last day, both included."""
        length = timedelta(days=int(self.days.data or DEFAULT_PERIOD) - 1)
        if self.first.data:
            longest = self.first.data + timedelta(days=MAX_PERIOD_DAYS - 1)
            return self.first.data, self.last.data or min(max(today, self.first.data), longest)
        last = self.last.data or today
        return last - length, last

    def months(self, today: date) -> list[tuple[str, date, date | None, bool]]:
        """This month and the last: label, first and last day, and whether the form has them.

        This month ends with today, which a link to it need not say.
        """
        this = today.replace(day=1)
        end = this - timedelta(days=1)
        found = (
            (gettext("This month"), this, None),
            (gettext("Last month"), end.replace(day=1), end),
        )
        here = self.first.data, self.last.data
        return [(label, first, last, here == (first, last)) for label, first, last in found]

    def query(self, first: date, last: date) -> UsageQuery:
        """The store's query for some days."""
        return UsageQuery(
            first=first,
            last=last,
            registry=self.registry.data or None,
            namespace=or_empty(self.namespace.data),
            repository=self.repository.data or None,
            tag=self.tag.data or None,
            digest=self.digest.data or None,
            actor=or_empty(self.actor.data),
            clients=frozenset({self.client.data}) if self.client.data else None,
            supplements=self._counts_everything,
        )

    def record_filters(self) -> dict[str, str]:
        """The same filters for the list of records, but for the period."""
        names = ("registry", "namespace", "repository", "tag", "digest", "client", "actor")
        given = {name: value for name in names if (value := self[name].data)}
        return given if self._counts_everything else {**given, "kind": CONTENT}

    @property
    def _counts_everything(self) -> bool:
        """Whether supplements count: where one is named, it is asked for."""
        return bool(self.supplements.data or self.tag.data or self.digest.data)


class DashboardFilter(UsageFilter):
    """The filters of the figures, and what the bars are stacked by."""

    by = ChoiceField(
        _("Bars by"),
        choices=[SelectChoice(ACTION, _("action")), SelectChoice(CLIENT, _("client"))],
        default=ACTION,
    )


class UnusedFilter(FilterForm):
    """Filters of the unused tags."""

    days = IntegerField(
        _("Days without use"),
        [Optional(), NumberRange(1, MAX_PERIOD_DAYS)],
        default=DEFAULT_UNUSED_DAYS,
        description=_("1 to %(most)s", most=MAX_PERIOD_DAYS),
    )
    registry = text_field(_("Registry"))
    namespace = text_field(_("Namespace"), description=_("as team; - for names without one"))
    repository = text_field(_("Repository"), description=_("the whole name, as team/app"))
    clients = text_field(
        _("Clients that count"),
        description=_("as docker,containerd; if empty all but scanner, replication and updater"),
    )

    def validate_clients(self, field: Field) -> None:
        """Known classes."""
        for name in self.client_classes():
            if name not in CLIENTS:
                known = ", ".join(CLIENTS)
                raise ValidationError(
                    gettext(
                        "no such client: %(name)s; known: %(known)s", name=name[:40], known=known
                    )
                )

    def client_classes(self) -> list[str]:
        """The classes that are named; none if all count that use images."""
        return [name.strip() for name in self.clients.data.split(",") if name.strip()]

    def query(self) -> UnusedQuery:
        """What is asked for."""
        return UnusedQuery(
            days=self.days.data or DEFAULT_UNUSED_DAYS,
            clients=frozenset(self.client_classes()) or USERS,
            registry=self.registry.data or None,
            namespace=or_empty(self.namespace.data),
            repository=self.repository.data or None,
        )


class StorageFilter(FilterForm):
    """Filters of what tags hold, by namespace."""

    days = PeriodField(
        _("Period"),
        longest=MAX_PERIOD_DAYS,
        choices=[SelectChoice(str(days), days_long(days)) for days in (7, 30, 90, 365)],
        default=DEFAULT_PERIOD,
    )
    registry = text_field(_("Registry"))
    namespace = text_field(_("Namespace"), description=_("as team; - for names without one"))
    repository = text_field(_("Repository"), description=_("the whole name, as team/app"))
    sort = ChoiceField(
        _("Sort by"),
        choices=[
            SelectChoice(CAME, _("New")),
            SelectChoice("name", _("Name")),
            SelectChoice("tags", _("Tags")),
            SelectChoice("size", _("Size")),
        ],
        default=CAME,
    )

    def in_force(self) -> list[tuple[Field, str]]:
        """The fields that narrow the list: period and order do not, and the page shows them."""
        others = (self.days, self.sort)
        return [(field, text) for field, text in super().in_force() if field not in others]

    def query(self) -> StorageQuery:
        """What is asked for."""
        return StorageQuery(
            days=int(self.days.data or DEFAULT_PERIOD),
            registry=self.registry.data or None,
            namespace=or_empty(self.namespace.data),
            repository=self.repository.data or None,
        )


class RecallFilter(FilterForm):
    """What to recall: a digest, or a tag between two times."""

    digest = text_field(_("Digest"), description=_("the whole digest"))
    repository = text_field(_("or repository"), description=_("the whole name, as team/app"))
    tag = text_field(_("and tag"))
    since = MomentField(_("which pointed to it from (UTC)"), name="from")
    until = MomentField(_("to (UTC)"), name="to", is_end=True)
    registry = text_field(_("Registry"))

    def validate_digest(self, field: Field) -> None:
        """Whole, and not beside a tag, nor a time: whoever pulled it at any time has it."""
        if field.data:
            if self.repository.data or self.tag.data:
                raise ValidationError(gettext("give a digest, or a repository and tag"))
            if self.since.data or self.until.data:
                raise ValidationError(
                    gettext("from and to are when a tag pointed to it: give a repository and tag")
                )
            try:
                parse_digest(field.data)
            except InvalidReference:
                raise ValidationError(gettext("expected a whole digest, as sha256:…")) from None
        elif not self.repository.data and not self.tag.data:
            raise ValidationError(gettext("is missing; or give a repository and tag"))

    def validate_tag(self, field: Field) -> None:
        """A repository alone is not enough."""
        if self.repository.data and not field.data:
            raise ValidationError(gettext("is missing"))

    def validate_repository(self, field: Field) -> None:
        """Nor is a tag."""
        if self.tag.data and not field.data:
            raise ValidationError(gettext("is missing"))

    def validate_until(self, field: Field) -> None:
        """The range must not be empty."""
        if self.since.data and field.data and field.data <= self.since.data:
            raise ValidationError(gettext("is not after from"))
