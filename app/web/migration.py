"""Live migrations, for administrators: how far each is, what failed, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import (
    Blueprint,
    Response,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_babel import gettext, ngettext

from app.errors import AppError, InvalidQuery, NotFound
from app.migration import Plan, states
from app.migration.advice import ADVICE
from app.migration.progress import Progress, find_progress
from app.migration.readiness import Check, find_checks
from app.migration.runbook import warn_of_start
from app.store.migrations import WORKED, Drift, Job, MigrationStore, present
from app.store.paging import Page
from app.web import languages, lists
from app.web.forms import DriftFilter, JobFilter
from app.web.lists import Item, Listing, fields_of
from app.web.preferences import page_size
from app.web.runtime import runtime
from app.web.signin import administrator, local_path
from app.web.texts import told

bp = Blueprint("migration", __name__, url_prefix="/migration")

REFRESH_S = 10
MAX_DELETES = 1_000_000
AUDIT_ROWS = HISTORY_ROWS = 50
SECRET = ("token",)  # of a job: who knows it can end the job

# What each action takes beside the plan.
TAKES: Mapping[str, set[str]] = {
    "start": set(),
    "pause": set(),
    "resume": {"allow_deletes"},
    "lift-brake": set(),
    "verify": set(),
    "retry": {"class", "id"},
    "skip": {"id"},
}


@bp.get("/")
def home() -> Any:
    """Every plan of the configuration and how far it is. 403 to others."""
    administrator()
    found = [progress_of(plan) for plan in runtime().plans]
    return _page("migration/home.html", found, plans=found)


@bp.get("/<name>")
def plan(name: str) -> Any:
    """One plan: progress, readiness, failures, runs, who did what. 403 to others, 404."""
    found = plan_named(name)
    progress = progress_of(found)
    return _page(
        "migration/plan.html",
        [progress],
        plan=found,
        progress=progress,
        checks=checks_of(found, progress.jobs),
        audit=_migrations().plans.find_audit(found.name, AUDIT_ROWS),
        history=_migrations().runs.find_history(found.name, HISTORY_ROWS),
    )


def _page(template: str, found: list[Progress], **context: Any) -> Response:
    """A page that shows itself anew while work goes on, for those who asked for it."""
    is_going_on = any(progress.is_going_on for progress in found)
    is_refreshed = is_going_on and bool(request.args.get("refresh"))
    page = render_template(
        template,
        now=present(),
        is_going_on=is_going_on,
        is_refreshed=is_refreshed,
        refresh_s=REFRESH_S,
        **context,
    )
    response = make_response(page)
    if is_refreshed:
        response.headers["Refresh"] = str(REFRESH_S)
    return response


@bp.get("/<name>/jobs")
def jobs(name: str) -> Any:
    """The jobs of a plan. 403 to others, 400, 404."""
    found = plan_named(name)
    return _list_page("migration/jobs.html", found, JobFilter(request.args), job_listing)


@bp.get("/<name>/drift")
def drift(name: str) -> Any:
    """What the last verification of a plan found. 403 to others, 400, 404."""
    found = plan_named(name)
    return _list_page("migration/drift.html", found, DriftFilter(request.args), drift_listing)


def _list_page(template: str, found: Plan, form: Any, make_listing: Any) -> Any:
    if not form.validate():
        return render_template(template, plan=found, form=form, page=None), 400
    listing: Listing = make_listing(found, form)
    exported = lists.export(listing)
    if exported:
        return exported
    page = listing.find(lists.cursor(), page_size())
    return render_template(
        template,
        plan=found,
        form=form,
        page=page,
        count=lists.total(listing, page),
        verify=_migrations().runs.get(found.name, "verify"),
        deep=_migrations().runs.get(found.name, "deep"),
        advice=ADVICE,
    )


@bp.post("/<name>/<any(start, pause, resume, 'lift-brake', verify, retry, skip):action>")
def act(name: str, action: str) -> Any:
    """Change a plan or its jobs; 303 back to the page, which says what became of it."""
    found = plan_named(name)
    given = {key: value for key, value in request.form.items() if key in TAKES[action]}
    try:
        flash(carry_out(found, action, given), "success")
    except AppError as error:
        if error.transient:
            raise
        flash(told(error), "danger")
    back = local_path(request.form.get("back", ""))
    return redirect(back or url_for("migration.plan", name=found.name), 303)


def carry_out(plan: Plan, action: str, given: Mapping[str, str | int]) -> str:
    """Do what an administrator asks for; returns a sentence that says what was done.

    Raises:
        InvalidQuery: something is missing in `given`, or cannot be used.
        IllegalState: the plan cannot be started, or compared, now.
    """
    who, migrations, now = administrator().name, _migrations(), present()
    for key in given.keys() - TAKES[action]:
        known = ", ".join(sorted(TAKES[action])) or "none"
        raise InvalidQuery(f"{key[:40]}: {action} takes no such value; known: {known}")
    texts = {key: str(value).strip() for key, value in given.items()}
    if action == "start":
        return _start(plan, who)
    if action == "pause":
        migrations.plans.pause(plan.name, who, now)
        return gettext("Paused.")
    if action == "resume":
        deletes = _number(texts.get("allow_deletes") or "0")
        migrations.plans.resume(plan.name, who, now, deletes)
        if not deletes:
            return gettext("Resumed.")
        number = languages.number(deletes)
        return gettext("Resumed, %(number)s deletes allowed.", number=number)
    if action == "lift-brake":
        migrations.plans.lift_brake(plan.name, who, now)
        return gettext("Deletes are braked no more.")
    if action == "verify":
        states.verify(migrations, plan, who, now)
        return gettext("A worker compares both sides.")
    return _change_jobs(plan, who, action, texts)


def _change_jobs(plan: Plan, who: str, action: str, texts: Mapping[str, str]) -> str:
    migrations, now = _migrations(), present()
    key, error_class = texts.get("id", ""), texts.get("class", "")
    if action == "retry":
        if bool(key) == bool(error_class):
            raise InvalidQuery("id, class: expected one of the two")
        number = migrations.jobs.retry(plan.name, who, now, id=key, error_class=error_class)
        return ngettext(
            "%(number)s job begins anew.",
            "%(number)s jobs begin anew.",
            number,
            number=languages.number(number),
        )
    if not migrations.jobs.waive(plan.name, who, key, now):
        raise InvalidQuery(f"id: there is no job {key[:400]!r} that is not running")
    return gettext("Skipped %(name)s until it is pushed again.", name=key.partition(" ")[2])


def _start(plan: Plan, who: str) -> str:
    migrations, now = _migrations(), present()
    warning = warn_of_start(migrations, plan)
    if migrations.plans.get(plan.name).state in WORKED:  # and stays in it: frozen, above all
        states.crawl(migrations, plan, who, now)
    else:
        states.start(migrations, plan, who, now)
    if warning:
        return gettext("Started. Beware: %(warning)s.", warning=told(warning))
    return gettext("Started: a worker crawls the source and copies what is missing.")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text[:9]) > MAX_DELETES:
        raise InvalidQuery(f"allow_deletes: expected 0 to {MAX_DELETES:,}")
    return int(text)


def plan_named(name: str) -> Plan:
    """A plan of the configuration; for administrators alone.

    Raises:
        NotFound: there is none of this name.
    """
    administrator()
    for found in runtime().plans:
        if found.name == name:
            return found
    raise NotFound("There is no such migration in config.yml.")


def progress_of(plan: Plan) -> Progress:
    """How far a plan is."""
    _migrations().follow_clock()
    return find_progress(_migrations(), plan, present())


def checks_of(plan: Plan, jobs: Mapping[str, int] | None = None) -> list[Check]:
    """Whether a plan may be cut over; `jobs` by state spare counting them once more."""
    return find_checks(runtime().stores, plan, present(), jobs)


def plan_listing() -> Listing:
    """Every plan; for administrators alone."""
    administrator()
    plans = runtime().plans

    def find(cursor: str | None, limit: int) -> Page[Item]:
        rows, more = lists.slice_of(plans, lambda plan: plan.name, cursor, limit)
        return Page([fields_of(progress_of(plan)) for plan in rows], more)

    columns = [name for name in Progress.__struct_fields__ if name not in _NESTED]
    return Listing("migrations", columns, find, lambda cap: lists.count_of(plans, cap))


_NESTED = ("breaker", "jobs", "failures", "workers", "crawl", "verify", "deep")


def job_listing(plan: Plan, form: JobFilter) -> Listing:
    """The jobs that a valid form selects, by repository and reference."""
    migrations, filters = _migrations(), form.filters()

    def find(cursor: str | None, limit: int) -> Page[Item]:
        page = migrations.jobs.find(plan.name, cursor=cursor, limit=limit, **filters)
        return Page([fields_of(job, SECRET) for job in page.items], page.next)

    columns = [name for name in Job.__struct_fields__ if name not in (*SECRET, "log")]
    return Listing(
        f"jobs-{plan.name}",
        columns,
        find,
        lambda cap: migrations.jobs.count_found(plan.name, cap=cap, **filters),
    )


def drift_listing(plan: Plan, form: DriftFilter) -> Listing:
    """The differences that a valid form selects, by repository and reference."""
    migrations, filters = _migrations(), form.filters()

    def find(cursor: str | None, limit: int) -> Page[Item]:
        page = migrations.runs.find_drift(plan.name, cursor=cursor, limit=limit, **filters)
        return Page([fields_of(row) for row in page.items], page.next)

    return Listing(
        f"drift-{plan.name}",
        Drift.__struct_fields__,
        find,
        lambda cap: migrations.runs.count_drift(plan.name, cap=cap, **filters),
    )


def _migrations() -> MigrationStore:
    return runtime().stores.migrations
