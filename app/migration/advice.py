"""What a person can do about a job that failed, by the class of its error."""

from __future__ import annotations

from collections.abc import Mapping

_WAITS = "The whole plan waits and goes on by itself, at once with resume."

ADVICE: Mapping[str, str] = {
    "down": f"The registry does not answer: see whether it runs. {_WAITS}",
    "auth": "Check username and password_file of the endpoint, then resume. By itself it is tried "
    "again after minutes, later hours: a few wrong passwords may lock the account.",
    "tls": f"Check https:// or http://, ca_file and the registry's certificate. {_WAITS}",
    "realm": f"List the token server in token_realms, if it may see the password. {_WAITS}",
    "disk_full": f"Free space at the target. {_WAITS}",
    "readonly": f"Let the target take pushes. {_WAITS}",
    "forbidden": "Give the account the right to pull there or to push here, then retry.",
    "rate_limited": "The registry asks to wait, which uses up no attempts. If that is often: "
    "lower requests_per_s or images in target.limits.",
    "server": "The registry failed: see its log, or lower target.limits; then retry.",
    "blob_unknown": "The source lost a layer or a child of an index: push it there anew. Or the "
    "target collected garbage meanwhile: retry.",
    "digest_mismatch": "The source's storage is damaged, or a proxy changes what it passes on: "
    "push the image anew.",
    "gone": "It was deleted at the source while it was looked at; retry looks again.",
    "unsupported": "The target does not take this kind of image, as schema 1: build it anew, or "
    "skip it.",
    "immutable": "The target does not let this tag move: delete it there and retry, or skip it.",
    "too_large": "Raise the body size limit of the target's proxy, or limits.max_blob_gb; then "
    "retry.",
    "exists": "Somebody else made this tag at the target (options.existing: fail): delete it "
    "there and retry, or skip it.",
    "braked": "Unusually many deletes wait for a person: see whether they are meant, then resume "
    "with a number of deletes, or lift the brake.",
    "bug": "An error of this program: see the worker's log.",
}


def advice(error_class: str) -> str:
    """What to do about this class of errors; in one or two sentences."""
    return ADVICE.get(error_class, "See the error of the job and the worker's log.")
