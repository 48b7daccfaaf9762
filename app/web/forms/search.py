"""Filters of the search pages."""

from __future__ import annotations

import re

from flask_babel import gettext
from flask_babel import lazy_gettext as _
from wtforms import Field, StringField
from wtforms.fields.choices import SelectChoice
from wtforms.validators import InputRequired, ValidationError

from app.store.catalogue import CatalogueQuery
from app.web.forms.fields import (
    ChoiceField,
    FilterForm,
    MomentField,
    SwitchField,
    or_empty,
    pattern,
    strip,
    text_field,
)

_DIGEST_START = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:?[A-Za-z0-9=_-]*")
_SORTS = [SelectChoice("name", _("Name")), SelectChoice("pushed", _("Last push"))]


class RegistryFilter(FilterForm):
    """Of which registry one resource is."""

    registry = text_field(
        _("Registry"), description=_("if not given, the first of the configuration")
    )


class RepositoryFilter(FilterForm):
    """Filters of the repository list."""

    q = text_field(
        _("Repository"), pattern, description=_("part of a name, ^begin, or a glob: team/*")
    )
    registry = text_field(_("Registry"))
    sort = ChoiceField(_("Sort by"), choices=_SORTS, default="name")
    pulls = SwitchField(_("Count pulls to this minute"))

    def query(self) -> CatalogueQuery:
        """The store's query."""
        return CatalogueQuery(
            q=self.q.data, registry=self.registry.data, sort=self.sort.data or "name"
        )


class TagFilter(FilterForm):
    """Filters of the tag list."""

    q = StringField(
        _("Repository"),
        [pattern],
        [strip],
        description=_("part of a name, ^begin, a glob, or name:tag as in app:1.*"),
    )
    tag = text_field(_("Tag"), pattern, description=_("part of a tag, ^begin, or a glob: 1.*"))
    namespace = text_field(_("Namespace"), description=_("as team; - for names without one"))
    repository = text_field(_("Exact repository"))
    digest = text_field(_("Digest"), description=_("sha256:… or its beginning"))
    registry = text_field(_("Registry"))
    sort = ChoiceField(_("Sort by"), choices=_SORTS, default="name")
    since = MomentField(_("First pushed from (UTC)"), name="from")
    until = MomentField(_("First pushed to (UTC)"), name="to", is_end=True)
    deleted = SwitchField(_("Show deleted tags"))

    def validate_until(self, field: Field) -> None:
        """The range must not be empty."""
        if self.since.data and field.data and field.data <= self.since.data:
            raise ValidationError(gettext("is not after from"))

    def validate_digest(self, field: Field) -> None:
        """A digest may be cut short anywhere."""
        if field.data and not _DIGEST_START.fullmatch(field.data):
            raise ValidationError(
                gettext("expected sha256: and hexadecimal digits, or their beginning")
            )

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
            namespace=or_empty(self.namespace.data),
            deleted=self.deleted.data,
        )


class HistoryFilter(FilterForm):
    """Whose history is asked for: one tag's."""

    repository = text_field(
        _("Repository"), InputRequired(), description=_("the whole name, as team/app")
    )
    tag = text_field(_("Tag"), InputRequired(), description=_("the whole tag"))
    registry = text_field(_("Registry"))
