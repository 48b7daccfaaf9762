"""What the filter forms are made of: the form read from a query string, its fields and checks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from flask_babel import LazyString, gettext
from flask_babel import lazy_gettext as _
from flask_wtf.i18n import translations
from werkzeug.datastructures import MultiDict
from wtforms import BooleanField, Field, Form, SelectField, StringField
from wtforms.fields.choices import SelectChoice
from wtforms.meta import DefaultMeta
from wtforms.validators import Length, ValidationError

from app.errors import InvalidQuery
from app.rules.events import MAX_ACTOR_LENGTH
from app.rules.references import MAX_REPOSITORY_LENGTH
from app.store.events import NONE
from app.web.texts import word

MAX_WILDCARDS = 8  # more make a pattern needlessly slow to match


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
                gettext("expected a day or a time in UTC, as 2026-11-23 or 2026-11-23T18:04")
            ) from None


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
            raise ValueError(gettext("expected a day, as 2026-11-23")) from None


class ChoiceField(SelectField):
    """One of some values; who gives another is told which there are."""

    def pre_validate(self, form: Form) -> None:
        """Raise ValidationError that names the choices."""
        values = [choice.value for choice in self.choices or ()]
        if self.data not in values:
            known = ", ".join(value for value in values if value)
            raise ValidationError(gettext("expected one of %(known)s", known=known))


class PeriodField(ChoiceField):
    """A number of days up to `longest`; `choices` are those that are offered."""

    def __init__(self, label: str, *, longest: int, **kwargs: Any) -> None:
        super().__init__(label, **kwargs)
        self.choices: Sequence[SelectChoice]
        self.longest = longest

    def process_formdata(self, valuelist: Sequence[str]) -> None:
        """Read a number; one that is not offered is offered from then on."""
        super().process_formdata([text.strip() for text in valuelist])
        offered = list(self.choices or ())
        if self._is_number() and self.data not in [choice.value for choice in offered]:
            self.choices = [*offered, SelectChoice(self.data, days_long(self.data))]

    def pre_validate(self, form: Form) -> None:
        """Raise ValidationError for what is no number of days."""
        if not self._is_number():
            raise ValidationError(
                gettext("expected a number of days, 1 to %(most)s", most=self.longest)
            )

    def _is_number(self) -> bool:
        text = self.data or ""
        is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(self.longest))
        return is_number and not text.startswith("0") and int(text) <= self.longest


class SwitchField(BooleanField):
    """On or off; anything that could mean either is refused."""

    OFF = ("0", "n", "no", "false", "False")
    ON = ("1", "y", "yes", "true", "True")  # a checkbox sends `y`

    def process_formdata(self, valuelist: Sequence[str]) -> None:
        """Read one of OFF and ON; empty is off."""
        text = valuelist[0].strip() if valuelist else ""
        if text and text not in self.OFF + self.ON:
            raise ValueError(gettext("expected 1 or 0"))
        self.data = text in self.ON


class FilterForm(Form):
    """A form read from the query string; wrong values are kept for the page to show."""

    class Meta(DefaultMeta):
        """Has WTForms' own messages in the language of the page."""

        def get_translations(self, form: Form) -> Any:
            return translations

    def __init__(self, given: MultiDict[str, str]) -> None:
        super().__init__(given)
        self.is_empty = not any(given.get(field.name, "").strip() for field in self)

    def validate(self, extra_validators: Any = None) -> bool:
        """Whether every value can be used. None holds NUL: no name has it, MongoDB refuses it."""
        return bool(super().validate({name: [_refuse_nul] for name in self._fields}))

    def in_force(self) -> list[tuple[Field, str]]:
        """The fields that narrow the list, each with its value as given."""
        texts = ((field, getattr(field, "text", field.data)) for field in self)
        return [
            (field, gettext("yes") if text is True else str(text))
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


def _refuse_nul(form: Form, field: Field) -> None:
    if any("\0" in text for text in field.raw_data or () if isinstance(text, str)):
        raise ValidationError(gettext("has a NUL character, which no name has"))


def strip(text: str | None) -> str:
    """A filter of a field: without the blanks around it."""
    return (text or "").strip()


def pattern(form: Form, field: Field) -> None:
    """A validator: a pattern that is quick to match."""
    if len(field.data) > MAX_REPOSITORY_LENGTH + 129:
        raise ValidationError(gettext("longer than any name"))
    if sum(field.data.count(wildcard) for wildcard in "*?") > MAX_WILDCARDS:
        raise ValidationError(gettext("at most %(most)s wildcards", most=MAX_WILDCARDS))


def text_field(label: str, *validators: Any, **kwargs: Any) -> StringField:
    """A line of text, of bounded length."""
    return StringField(label, [Length(max=MAX_ACTOR_LENGTH), *validators], [strip], **kwargs)


DIGEST_START = re.compile(r"[0-9a-f]{6,}|[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{6,}")


def digest_start(form: Form, field: Field) -> None:
    """A validator: a digest, or enough of its beginning to be told from others."""
    if field.data and not DIGEST_START.fullmatch(field.data):
        raise ValidationError(
            gettext(
                "expected a digest, as sha256:…, or the first 6 or more of its hexadecimal digits"
            )
        )


def whole_digest(text: str) -> str:
    """`text` with its algorithm, which is sha256 where it names none."""
    return f"sha256:{text}" if text and ":" not in text else text


def any_of(values: Sequence[str]) -> list[SelectChoice]:
    """The choices of a field that may be left open."""
    return [SelectChoice("", _("Any")), *(SelectChoice(value, word(value)) for value in values)]


def days_long(number: int | str) -> LazyString:
    """A period, as a choice names it."""
    return _("%(number)s days", number=number)


def or_empty(text: str | None) -> str | None:
    """The store's value of a filter: "" where `-` asks for what has none, None where it is open."""
    return "" if text == NONE else text or None
