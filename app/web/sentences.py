"""What the rooms below say to people, for the catalogue.

`%(…)s` stands for what varies; where it is `text`, for another sentence, and `what` is a word. A
sentence that is no more said does no harm, and one that is missing here is shown in English.
"""

from __future__ import annotations


def _(text: str) -> str:
    """Has `make translations` take the text into the catalogue."""
    return text


# Values of the API.
WORDS = (
    # Actions of records.
    _("push"),
    _("pull"),
    _("check"),
    _("delete"),
    _("mount"),
    _("rename"),
    # Kinds of manifests.
    _("image"),
    _("index"),
    _("chart"),
    _("signature"),
    _("attestation"),
    _("sbom"),
    _("plugin"),
    _("artifact"),
    _("blob"),
    # Classes of clients; others are names.
    _("scanner"),
    _("replication"),
    _("updater"),
    _("proxy"),
    _("ci"),
    _("builder"),
    _("browser"),
    _("other"),
    _("own"),
    # Outcomes of sign-ins.
    _("signed in"),
    _("refused"),
    _("signed out"),
    _("changed password"),
    _("made token"),
    _("revoked token"),
    # States of jobs.
    _("pending"),
    _("running"),
    _("done"),
    _("skipped"),
    _("conflict"),
    _("dead"),
    # Results of jobs.
    _("copied"),
    _("present"),
    _("deleted"),
    _("absent"),
    _("kept"),
    _("filtered"),
    _("waived"),
    # Differences of two registries.
    _("missing"),
    _("different"),
    _("extra"),
    _("broken child"),
    _("broken blob"),
    _("unknown"),
    _("left out"),
    # States of migrations.
    _("draft"),
    _("backfill"),
    _("live"),
    _("frozen"),
    _("cut over"),
    _("rolled back"),
    _("closed"),
    # Runs.
    _("crawl"),
    _("verify"),
    _("partial"),
    _("deep"),
    # What a verification found, beside the differences.
    _("broken"),
    # What was done to a migration.
    _("start"),
    _("pause"),
    _("resume"),
    _("lift the brake"),
    # Differences of catalogue and registry.
    _("unheard"),
    _("moved"),
    _("gone"),
)

SENTENCES = (
    # Errors that a page shows.
    _("There is no such tag."),
    _("There is no such digest."),
    _("There is no such repository."),
    _("There is no such record."),
    _("There is no such account."),
    _("There is no such job."),
    _("There is no such resource."),
    _("There is no such rejected event."),
    _("There is no such migration in config.yml."),
    _("No pull or push came from this address in the last 30 days."),
    _("This page is for administrators (access.administrators)."),
    _("Sign in with your registry account."),
    _("The user name or the password is wrong."),
    _("A password has at most %(most)s bytes: bcrypt reads no more."),
    _("The password of this account is not kept here."),
    _("Too many sign in at this moment: try again in a second."),
    _("Too many failed sign-ins: try again in %(seconds)s seconds."),
    _("The API token is wrong, revoked or over, or its account is gone."),
    _("An API token reads /api/v1 and the exports of lists; it opens nothing else."),
    _("Authorization: expected HTTP Basic with a registry account, or Bearer with an API token."),
    _("%(header)s: the proxy in front of this server names no account that can be."),
    _("%(header)s: there is no account %(name)s on this server."),
    _("Nobody can sign in just now; the log of the server says why."),
    _("Not ready: %(text)s. Events are taken in meanwhile; nothing is lost."),
    _("the database is brought from schema %(old)s to %(new)s"),
    _(
        "the database is brought from schema %(old)s to %(new)s: %(done)s of about %(total)s "
        "documents are done"
    ),
    _("Nothing can be stored or read just now. Nothing was lost; try again in a moment."),
    _("Something went wrong here; the log of the server says what."),
    _("The body is larger than it may be."),
    _("The CSRF token is missing."),
    _("The CSRF session token is missing."),
    _("The CSRF token is invalid."),
    _("The CSRF tokens do not match."),
    _("The referrer header is missing."),
    _("The referrer does not match the host."),
    _("Host: not one of server.hosts in config.yml."),
    _(
        "The requested URL was not found on the server. If you entered the URL manually please "
        "check your spelling and try again."
    ),
    _("The method is not allowed for the requested URL."),
    _("The browser (or proxy) sent a request that this server could not understand."),
    _("cursor: expected the one of a `next` of this list"),
    _("limit: expected 1 to %(most)s"),
    _("total: expected 0 or 1"),
    _("format: expected csv or ndjson"),
    _("since: expected milliseconds since 1970"),
    _("repository: is missing"),
    _("expected one of %(known)s"),
    _("%(name)s: expected one of %(known)s"),
    _("digest: several begin so: %(digests)s"),
    _("clients: those of other people are not shown to you (access.records)"),
    _("not a repository name: %(name)s"),
    _("not a tag: %(name)s"),
    _("not a digest: %(name)s"),
    _("id, class: expected one of the two"),
    _("id: there is no job %(job)s that is not running"),
    _("allow_deletes: expected 0 to %(most)s"),
    _("1 to %(most)s printable characters without a colon"),
    _("%(account)s has %(number)s tokens; revoke one first"),
    _("%(account)s has a token %(name)s; revoke it, or take another"),
    _("not JSON: %(error)s"),
    _("%(text)s; expected %(example)s"),
    # Why an account may pull or not.
    _("an administrator sees everything (access.administrators)"),
    _("the list has an invalid entry, so it denies everything"),
    _("no entry matches, but it is the account's own namespace"),
    _("no entry matches, and what nothing allows is denied"),
    _("the entry with seq %(seq)s decides: it allows pull"),
    _("the entry with seq %(seq)s decides: it does not allow pull"),
    _("the entry with seq %(seq)s decides: it %(text)s"),
    _("seq %(seq)s is stored before it, and allows pull"),
    _("seq %(seq)s is stored before it, and does not allow pull"),
    _("ip %(network)s does not hold an unknown address"),
    _("ip %(network)s does not hold %(address)s"),
    _("%(field)s %(pattern)s does not match no value"),
    _("%(field)s %(pattern)s does not match %(values)s"),
    _("too complex to be tried, so it allows nothing: %(text)s"),
    _("too many combinations of labels"),
    _("without seq, number %(number)s in the collection"),
    _("of the file"),
    _("ignored: it has no seq"),
    _("invalid: %(text)s"),
    _("it asks for labels, which a token server does not tell: it allows nobody anything"),
    _("it asks for labels, which a token server does not tell: it denies whatever they are"),
    _("another entry has the same seq"),
    _("actions is not a list of words"),
    _("labels is not a document"),
    _("not a document"),
    _("%(field)s is not a document"),
    _("ip %(address)s is not an address or CIDR"),
    # How a sign-in was made.
    _("form"),
    _("basic"),
    _("token"),
    _("header"),
    _("token %(name)s"),
    # What a migration waits for.
    _("%(number)s jobs are open"),
    _("%(number)s jobs are dead or in conflict"),
    _("not braked"),
    _("it is draft, not live or frozen"),
    _("it is backfill, not live or frozen"),
    _("it is cut over, not live or frozen"),
    _("it is rolled back, not live or frozen"),
    _("it is closed, not live or frozen"),
    _("paused by %(who)s"),
    _("none is alive to copy what is pushed: rns migrate worker"),
    _("%(number)s alive"),
    _("nobody asked the registries within %(seconds)s s"),
    _("both registries answer"),
    _("source.debug_url tells nothing"),
    _("%(number)s events wait there"),
    _("a folder sends none"),
    _("no server ran yet that events could come to"),
    _("what came in the last %(seconds)s s is not worked in: does rns serve run?"),
    _("the clock of rns serve is %(seconds)s s ahead of the database's"),
    _("what came during the last verification is not worked in yet"),
    _("every event that came is worked in"),
    _("another crawl is wanted: %(text)s"),
    _("started"),
    _("asked for"),
    _("final, as the source is frozen"),
    _("the source was restarted, and may have lost events"),
    _("state %(what)s"),
    _("state %(what)s, by force: %(text)s"),
    _("crawl: %(text)s"),
    _("resume, %(number)s deletes allowed"),
    _("retry %(jobs)s: %(number)s jobs"),
    _("skip %(job)s"),
    _("there was no crawl"),
    _("the crawl saw %(number)s tags so far"),
    _("the crawl saw %(number)s tags so far; it stopped: %(text)s"),
    _("the source does not list the tags of %(names)s"),
    _(
        "the crawl saw %(number)s tags, the one before it %(before)s: if the source lists all "
        "that it has, rns migrate crawl looks once more"
    ),
    _("the crawl saw no tag that this plan takes: see its repos and tags, and the source"),
    _("the source shows no catalogue: only repositories known from events were seen"),
    _("%(number)s tags seen"),
    _("no verification of everything is complete"),
    _("no verification of everything is complete; the last one stopped: %(text)s"),
    _("the last verification found %(found)s"),
    _(
        "the last verification saw %(number)s tags, the crawl %(crawled)s: if the source lists "
        "all that it has, rns migrate crawl looks once more"
    ),
    _("%(number)s tags are equal"),
    _("%(number)s tags are equal, %(left_out)s are left out on purpose"),
    _(
        "%(number)s tags are equal; a verification of all bytes, begun %(time)s, found nothing "
        "broken"
    ),
    _(
        "%(number)s tags are equal; a verification of all blobs, begun %(time)s, found nothing "
        "broken"
    ),
    _(
        "%(number)s tags are equal, %(left_out)s are left out on purpose; a verification of all "
        "bytes, begun %(time)s, found nothing broken"
    ),
    _(
        "%(number)s tags are equal, %(left_out)s are left out on purpose; a verification of all "
        "blobs, begun %(time)s, found nothing broken"
    ),
    _(
        "a verification of all bytes, begun %(time)s, found %(found)s; rns migrate verify --bytes"
        " tells if they still are"
    ),
    _(
        "a verification of all blobs, begun %(time)s, found %(found)s; rns migrate verify --deep "
        "tells if they still are"
    ),
    _("the source was frozen after the last verification began"),
    _("a crawl ended after the last verification began"),
    _("something was pushed since the last verification began"),
    _(
        "the last verification ended %(minutes)s minutes ago, and a push may have been missed "
        "since: rns migrate ready compares now"
    ),
    _(
        "events of %(begin)s to %(end)s UTC may be missing (%(text)s), and the last verification "
        "began before"
    ),
    _("%(number)s deletes within %(minutes)s minutes"),
    _("no server listened"),
    _("%(plan)s is closed; give the migration another name to begin anew"),
    _("%(plan)s is %(what)s; rns migrate start begins it anew"),
    _("not ready: %(text)s"),
    _("clients may have pushed to %(url)s. %(text)s"),
    _(
        "Once the plan is started again, it overwrites tags that were pushed there, where the "
        "source has others (options.existing: backup keeps a copy)"
    ),
    _(
        "Once the plan is started again, tags that were pushed there are kept as TAG-before-"
        "DIGEST, where the source has others"
    ),
    _("Tags that were pushed there stay, also once the plan is started again"),
    _("Tags that were pushed there stay, and become conflicts once the plan is started again"),
    # What is wrong with the wiring, and who was refused.
    _("embedded, in %(place)s"),
    _("the index %(name)s is missing: restart the server"),
    _("no index is there: a server creates them when it starts"),
    _("events are refused: %(text)s"),
    _(
        "the inbox is full: it holds notifications.max_inbox_bytes; registries keep the rest until "
        "some is worked in"
    ),
    _("whoever reaches the proxy in front can send events as %(name)s, which has no token"),
    _(
        "accepted events wait since %(seconds)s s to be worked in: no server runs, or it cannot "
        "keep up"
    ),
    _("nothing came from it within 30 days"),
    _("its debug server does not answer: %(url)s"),
    _("%(number)s events wait in the registry: it cannot deliver them"),
    _(
        "its pushes do not say what they consist of, so sizes and platforms are unknown: set "
        "notifications.events.includereferences: true there"
    ),
    _("no event names an account: it lets in everybody, or a proxy signs in"),
    _("its clock is %(seconds)s s ahead of this server's"),
    _(
        "its events come %(seconds)s s late at least: its clock is behind this server's, or it "
        "waited with them"
    ),
    _(
        "%(ignored)s of its %(all)s newest events are transfers of blobs, which nobody needs: set"
        " ignore: {mediatypes: [application/octet-stream]} at its endpoint"
    ),
    _("an answer took %(seconds)s s: the endpoint's timeout should be well above that"),
    _("what it sends is no envelope: %(text)s"),
    _("an envelope is larger than notifications.max_body_bytes, which is %(most)s"),
    _("it sends them by %(method)s: %(right)s takes POST"),
    _("it sends them to %(path)s: the url of its endpoint has to end in %(right)s"),
    _("no registry of config.yml without a token has its X-Registry-Id"),
    _(
        "no registry of config.yml has its token: compare registries[].token with "
        "headers.Authorization of its endpoint"
    ),
    _(
        "no registry of config.yml may do without a token, and it sends none: compare "
        "registries[].token with headers.Authorization of its endpoint"
    ),
    # What to do about jobs that failed.
    _(
        "The registry does not answer: see whether it runs. The whole plan waits and goes on by "
        "itself, at once with resume."
    ),
    _(
        "Check username and password_file of the endpoint, then resume. By itself it is tried "
        "again after minutes, later hours: a few wrong passwords may lock the account."
    ),
    _(
        "Check https:// or http://, ca_file and the registry's certificate. The whole plan waits "
        "and goes on by itself, at once with resume."
    ),
    _(
        "List the token server in token_realms, if it may see the password. The whole plan waits "
        "and goes on by itself, at once with resume."
    ),
    _("Free space at the target. The whole plan waits and goes on by itself, at once with resume."),
    _(
        "Let the target take pushes. The whole plan waits and goes on by itself, at once with "
        "resume."
    ),
    _("Give the account the right to pull there or to push here, then retry."),
    _(
        "The registry asks to wait, which uses up no attempts. If that is often: lower "
        "requests_per_s or images in target.limits."
    ),
    _("The registry failed: see its log, or lower target.limits; then retry."),
    _(
        "The source lost a layer or a child of an index: push it there anew. Or the target "
        "collected garbage meanwhile: retry."
    ),
    _(
        "The source's storage is damaged, or a proxy changes what it passes on: push the image "
        "anew."
    ),
    _("It was deleted at the source while it was looked at; retry looks again."),
    _("The target does not take this kind of image, as schema 1: build it anew, or skip it."),
    _("The target does not let this tag move: delete it there and retry, or skip it."),
    _("Raise the body size limit of the target's proxy, or limits.max_blob_gb; then retry."),
    _(
        "Somebody else made this tag at the target (options.existing: fail): delete it there and "
        "retry, or skip it."
    ),
    _(
        "Unusually many deletes wait for a person: see whether they are meant, then resume with a"
        " number of deletes, or lift the brake."
    ),
    _("An error of this program: see the worker's log."),
    _("See the error of the job and the worker's log."),
)
