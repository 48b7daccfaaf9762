r"""Who may pull what: docker_auth's ACL, its patterns, and the rule of one request. Pure.

Source: cesanta/docker_auth `auth_server/authz/acl.go`, Go's `path.Match` and `regexp`. An account
sees the repositories it may pull: the first entry that matches decides, none allows nothing.
"""

from app.rules.access.acl import (
    Account,
    Acl,
    Problem,
    by_seq,
    check_account_name,
    find_odd_field,
    parse_acl,
    without_labels,
)
from app.rules.access.explanation import Explanation, Step, explain, find_hidden
from app.rules.access.order import Disorder, find_disorder
from app.rules.access.placing import place_entries
from app.rules.access.rule import Rule, Shape, compile_rule

__all__ = [
    "Account",
    "Acl",
    "Disorder",
    "Explanation",
    "Problem",
    "Rule",
    "Shape",
    "Step",
    "by_seq",
    "check_account_name",
    "compile_rule",
    "explain",
    "find_disorder",
    "find_hidden",
    "find_odd_field",
    "parse_acl",
    "place_entries",
    "without_labels",
]
