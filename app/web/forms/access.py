"""Signing in, and what administrators ask about access."""

from __future__ import annotations

from flask_wtf import FlaskForm
from wtforms import Field, PasswordField, StringField, TextAreaField
from wtforms.validators import InputRequired, Length, ValidationError

from app.analysis.explain import parse_entry
from app.errors import InvalidQuery
from app.rules.addresses import parse_address, parse_ip
from app.store.sign_ins import OUTCOMES
from app.web.forms.fields import ChoiceField, FilterForm, any_of, strip, text_field


class SignInForm(FlaskForm):
    """User name and password of a registry account."""

    username = StringField("User name", [InputRequired(), Length(max=255)])
    password = PasswordField("Password", [InputRequired(), Length(max=1024)])


class AccessFilter(FilterForm):
    """What the explainer is asked."""

    account = StringField(
        "Account", [InputRequired(), Length(max=255)], [strip], description="as in docker login"
    )
    repository = text_field(
        "Repository", InputRequired(), description="the whole name, as team/app"
    )
    address = text_field("Client address", description="for entries with ip")
    entry = TextAreaField(
        "What if: an entry that is not saved",
        [Length(max=10_000)],
        [strip],
        description="JSON; an entry with the same seq is replaced by it",
    )

    def validate_address(self, field: Field) -> None:
        """One address, no network."""
        if field.data and parse_ip(field.data) is None:
            raise ValidationError("expected an address, as 10.0.0.1")

    def validate_entry(self, field: Field) -> None:
        """An entry that docker_auth would take."""
        if field.data:
            try:
                parse_entry(field.data)
            except InvalidQuery as error:
                raise ValidationError(str(error).removeprefix("entry: ")) from None


class SignInFilter(FilterForm):
    """Filters of the sign-in audit."""

    account = text_field("Account", description="as it was given")
    address = text_field("Address")
    outcome = ChoiceField("Outcome", choices=any_of(OUTCOMES), default="")

    def filters(self) -> dict[str, str]:
        """The store's filters."""
        given = {field.name: field.data for field in self if field.data}
        if self.address.data:
            given["address"] = parse_address(self.address.data)
        return given
