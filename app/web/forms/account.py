"""The account page: a new API token, a new password; and whose tokens an administrator sees."""

from __future__ import annotations

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
        "Name",
        [InputRequired(), Length(max=MAX_NAME_LENGTH)],
        [strip],
        description="what it is for, as nightly-report",
    )
    days = IntegerField(
        "Days",
        [InputRequired()],
        default=DEFAULT_LIFETIME.days,
        description="until it ends",
    )

    def validate_days(self, field: Field) -> None:
        """As long as a token may last where its account is."""
        longest = runtime().stores.tokens.longest.days
        if field.data is not None and not 1 <= field.data <= longest:
            raise ValidationError(f"expected 1 to {longest}")


class PasswordForm(FlaskForm):
    """A new password."""

    present = PasswordField("Present password", [InputRequired(), Length(max=1024)])
    new = PasswordField(
        "New password",
        [InputRequired(), Length(min=MIN_PASSWORD_LENGTH)],
        description=f"at least {MIN_PASSWORD_LENGTH} characters, and at most "
        f"{MAX_PASSWORD_BYTES} bytes: bcrypt reads no more",
    )
    again = PasswordField("New password again", [EqualTo("new", "the two are not the same")])

    def validate_new(self, field: Field) -> None:
        """What bcrypt can tell from another."""
        if len(field.data.encode("utf-8", "surrogatepass")) > MAX_PASSWORD_BYTES:
            raise ValidationError(f"more than {MAX_PASSWORD_BYTES} bytes, which bcrypt reads")
        if "\0" in field.data:
            raise ValidationError("has a character that bcrypt does not take")


class TokenFilter(FilterForm):
    """Filters of everybody's tokens."""

    account = text_field("Account")
