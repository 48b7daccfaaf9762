"""Which kind of client a user agent belongs to. Pure."""

from __future__ import annotations

import re

OWN_CLIENT = "own"  # says to be our migration worker: left out of every figure, not of a recall
OWN_USER_AGENT = "rns-migrate/"
# Where two names begin at the same place the upper one is taken: `docker-scout` before `docker`.
_NAMES: dict[str, tuple[str, ...]] = {
    "scanner": (
        "trivy",
        "grype",
        "clair",
        "anchore",
        "snyk",
        "syft",
        "docker-scout",
        "harbor-scanner",
        "neuvector",
        "stackrox",
        "sysdig",
        "twistlock",
    ),
    "replication": (
        "regclient/regsync",
        "regsync",
        "image-syncer",
        "dregsy",
        "harbor-replication-service",
        "oc-mirror",
    ),
    "updater": (
        "watchtower",
        "diun",
        "wud",
        "whats-up-docker",
        "renovate",
        "renovatebot",
        "dependabot",
        "keel",
        "argocd-image-updater",
        "image-reflector-controller",
        "image-automation-controller",
        "updatecli",
    ),
    # Harbor is `harbor-registry-client` as a proxy, and in some versions when it replicates.
    "proxy": ("artifactory", "nexus", "harbor", "zot"),
    "ci": (
        "gitlab",
        "github-actions",
        "jenkins",
        "drone",
        "tekton",
        "woodpecker",
        "concourse",
        "teamcity",
        "buildkite",
    ),
    "builder": (
        "kaniko",
        "jib",
        "werf",
        "ko",
        "apko",
        "bazel",
        "rules_oci",
        "rules_docker",
        ".net container library",
    ),
    "buildkit": ("buildkit",),
    "helm": ("helm",),
    "oras": ("oras",),
    "cri-o": ("cri-o",),
    "containerd": ("containerd", "nerdctl"),
    "podman": ("podman", "libpod", "buildah", "skopeo", "containers"),
    "crane": ("crane", "gcrane", "krane", "go-containerregistry", "regclient", "regctl", "cosign"),
    "docker": ("docker", "moby"),
    "browser": ("mozilla",),
}
CLIENTS = (*_NAMES, "other")  # `own` is none to choose
# The node asks at each start of a container whether its image is still that of the tag.
RUNTIMES = frozenset({"docker", "containerd", "cri-o", "podman"})
# They pull whatever there is: that they did tells nothing about who needs it.
NOT_USE = frozenset({"scanner", "replication", "updater", OWN_CLIENT})

_CLASSES = {name: client for client, names in _NAMES.items() for name in names}
_NAME = re.compile(rf"(?<![a-z0-9_])(?:{'|'.join(map(re.escape, _CLASSES))})(?![a-z0-9_])")


def client_class(user_agent: str) -> str:
    """The class of the client that is named first, `other` when no known one is.

    So the first product decides, whatever libraries and daemons follow it:
    `docker/29.2.1 … containerd-client/2.2.1` is docker.
    """
    text = user_agent.lower()
    if text.startswith(OWN_USER_AGENT):
        return OWN_CLIENT
    found = _NAME.search(text)
    return _CLASSES[found[0]] if found else "other"
