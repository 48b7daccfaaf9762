"""The account page: a new API token, a new password; and whose tokens an administrator sees."""

from __future__ import annotations

from flask_babel import gettext
from flask_babel import lazy_gettext as _
from flask_wtf import FlaskForm
from wtforms import Field, IntegerField, PasswordField, StringField
from wtforms.validators import EqualTo, InputRequired, Length, ValidationError

from app.rules.tokens import DEFAULT_LIFETIME, MAX_NAME_LENGTH
from app.store.accounts import MAX_PASSWORD_BYTES
from app.web.forms.fields import FilterForm, strip, text_field
from app.web.runtime import runtime

MIN_PASSWORD_LENGTH = 8


class TokenForm(FlaskForm):
    """An API token to be made."""

    name = StringField(
        _("Name"),
        [InputRequired(), Length(max=MAX_NAME_LENGTH)],
        [strip],
        description=_("what it is for, as nightly-report"),
    )
    days = IntegerField(
        _("Days"),
        [InputRequired()],
        default=DEFAULT_LIFETIME.days,
        description=_("until it ends"),
    )

    def validate_days(self, field: Field) -> None:
        """As long as a token may last where its account is."""
        longest = runtime().stores.tokens.longest.days
        if field.data is not None and not 1 <= field.data <= longest:
            raise ValidationError(gettext("expected 1 to %(most)s", most=longest))


class PasswordForm(FlaskForm):
    """A new password."""

    present = PasswordField(_("Present password"), [InputRequired(), Length(max=1024)])
    new = PasswordField(
        _("New password"),
        [InputRequired(), Length(min=MIN_PASSWORD_LENGTH)],
        description=_(
            "at least %(least)s characters, and at most %(most)s bytes: bcrypt reads no more",
            least=MIN_PASSWORD_LENGTH,
            most=MAX_PASSWORD_BYTES,
        ),
    )
    again = PasswordField(_("New password again"), [EqualTo("new", _("the two are not the same"))])

    def validate_new(self, field: Field) -> None:
        """What bcrypt can tell from another."""
        if len(field.data.encode("utf-8", "surrogatepass")) > MAX_PASSWORD_BYTES:
            raise ValidationError(
                gettext("more than %(most)s bytes, which bcrypt reads", most=MAX_PASSWORD_BYTES)
            )
        if "\0" in field.data:
            raise ValidationError(gettext("has a character that bcrypt does not take"))


class TokenFilter(FilterForm):
    """Filters of everybody's tokens."""

    account = text_field(_("Account"))
