"""The forms: sign-in, and the filters that pages, exports and API share.

A filter form is read from the query string. `query()` of a valid one gives the store's query; the
names of the fields are the names of the API's parameters.
"""

from app.web.forms.access import AccessFilter, SignInFilter, SignInForm
from app.web.forms.account import PasswordForm, TokenFilter, TokenForm
from app.web.forms.analysis import (
    ACTION,
    CLIENT,
    DashboardFilter,
    RecallFilter,
    RecordFilter,
    StorageFilter,
    UnusedFilter,
    UsageFilter,
)
from app.web.forms.fields import DayField, FilterForm, PeriodField, SwitchField
from app.web.forms.migration import DriftFilter, JobFilter
from app.web.forms.search import HistoryFilter, RegistryFilter, RepositoryFilter, TagFilter

__all__ = [
    "ACTION",
    "CLIENT",
    "AccessFilter",
    "DashboardFilter",
    "DayField",
    "DriftFilter",
    "FilterForm",
    "HistoryFilter",
    "JobFilter",
    "PasswordForm",
    "PeriodField",
    "RecallFilter",
    "RecordFilter",
    "RegistryFilter",
    "RepositoryFilter",
    "SignInFilter",
    "SignInForm",
    "StorageFilter",
    "SwitchField",
    "TagFilter",
    "TokenFilter",
    "TokenForm",
    "UnusedFilter",
    "UsageFilter",
]
