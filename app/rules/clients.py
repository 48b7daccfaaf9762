"""Which kind of client a user agent belongs to. Pure."""

from __future__ import annotations

OWN_CLIENT = "own"  # says to be our migration worker: left out of every figure, not of a recall
OWN_USER_AGENT = "rns-migrate/"
# The first word found decides, so what is built on another tool stands before it.
_CLIENT_WORDS: tuple[tuple[str, str], ...] = (
    ("trivy", "scanner"),
    ("grype", "scanner"),
    ("clair", "scanner"),
    ("anchore", "scanner"),
    ("snyk", "scanner"),
    ("syft", "scanner"),
    ("regsync", "mirror"),
    ("image-syncer", "mirror"),
    ("dregsy", "mirror"),
    ("harbor", "mirror"),
    ("zot", "mirror"),
    ("artifactory", "mirror"),
    ("nexus", "mirror"),
    ("gitlab", "ci"),
    ("github-actions", "ci"),
    ("jenkins", "ci"),
    ("drone", "ci"),
    ("tekton", "ci"),
    ("kaniko", "kaniko"),
    ("buildkit", "buildkit"),
    ("helm", "helm"),
    ("oras", "oras"),
    ("cri-o", "cri-o"),
    ("containerd", "containerd"),
    ("nerdctl", "containerd"),
    ("skopeo", "podman"),
    ("buildah", "podman"),
    ("podman", "podman"),
    ("libpod", "podman"),
    ("containers/", "podman"),
    ("crane", "crane"),
    ("go-containerregistry", "crane"),
    ("regclient", "crane"),
    ("regctl", "crane"),
    ("cosign", "crane"),
    ("docker", "docker"),
    ("mozilla", "browser"),
)
CLIENTS = (*dict.fromkeys(name for _, name in _CLIENT_WORDS), "other")


def client_class(user_agent: str) -> str:
    """The client class of a user agent, `other` when no known word is in it."""
    text = user_agent.lower()
    if text.startswith(OWN_USER_AGENT):
        return OWN_CLIENT
    return next((name for word, name in _CLIENT_WORDS if word in text), "other")
