"""Signing in, and what administrators ask about access."""

from __future__ import annotations

from flask_babel import gettext
from flask_babel import lazy_gettext as _
from flask_wtf import FlaskForm
from wtforms import Field, PasswordField, StringField, TextAreaField
from wtforms.validators import InputRequired, Length, ValidationError

from app.analysis.explain import parse_entry
from app.errors import InvalidQuery
from app.rules.addresses import parse_address, parse_ip
from app.store.sign_ins import OUTCOMES
from app.web.forms.fields import ChoiceField, FilterForm, any_of, strip, text_field
from app.web.texts import told


class SignInForm(FlaskForm):
    """User name and password of a registry account."""

    username = StringField(_("User name"), [InputRequired(), Length(max=255)])
    password = PasswordField(_("Password"), [InputRequired(), Length(max=1024)])


class AccessFilter(FilterForm):
    """What the explainer is asked."""

    account = StringField(
        _("Account"),
        [InputRequired(), Length(max=255)],
        [strip],
        description=_("as in docker login"),
    )
    repository = text_field(
        _("Repository"), InputRequired(), description=_("the whole name, as team/app")
    )
    address = text_field(_("Client address"), description=_("for entries with ip"))
    entry = TextAreaField(
        _("What if: an entry that is not saved"),
        [Length(max=10_000)],
        [strip],
        description=_("JSON; an entry with the same seq is replaced by it"),
    )

    def validate_address(self, field: Field) -> None:
        """One address, no network."""
        if field.data and parse_ip(field.data) is None:
            raise ValidationError(gettext("expected an address, as 10.0.0.1"))

    def validate_entry(self, field: Field) -> None:
        """An entry that docker_auth would take."""
        if field.data:
            try:
                parse_entry(field.data)
            except InvalidQuery as error:
                raise ValidationError(told(str(error).removeprefix("entry: "))) from None


class SignInFilter(FilterForm):
    """Filters of the sign-in audit."""

    account = text_field(_("Account"), description=_("as it was given"))
    address = text_field(_("Address"))
    outcome = ChoiceField(_("Outcome"), choices=any_of(OUTCOMES), default="")

    def filters(self) -> dict[str, str]:
        """The store's filters."""
        given = {field.name: field.data for field in self if field.data}
        if self.address.data:
            given["address"] = parse_address(self.address.data)
        return given
