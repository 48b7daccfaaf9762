"""Filters of what a migration has to do and what it found."""

from __future__ import annotations

from flask_babel import lazy_gettext as _

from app.migration.advice import ADVICE
from app.store.migrations import DRIFT_KINDS, JOB_STATES
from app.web.forms.fields import ChoiceField, FilterForm, any_of, text_field


class JobFilter(FilterForm):
    """Filters of the jobs of a migration."""

    state = ChoiceField(_("State"), choices=any_of(JOB_STATES), default="")
    error_class = ChoiceField(_("Class"), choices=any_of(list(ADVICE)), default="", name="class")
    repository = text_field(_("Repository"), description=_("the whole name, as team/app"))

    def filters(self) -> dict[str, str]:
        """The store's filters."""
        return {
            "state": self.state.data,
            "error_class": self.error_class.data,
            "repository": self.repository.data,
        }


class DriftFilter(FilterForm):
    """Filters of the differences that a verification found."""

    kind = ChoiceField(_("Kind"), choices=any_of(DRIFT_KINDS), default="")
    repository = text_field(_("Repository"), description=_("the whole name, as team/app"))

    def filters(self) -> dict[str, str]:
        """The store's filters."""
        return {"kind": self.kind.data, "repository": self.repository.data}
