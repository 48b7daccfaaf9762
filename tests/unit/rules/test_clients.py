"""Which client a user agent speaks of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rules.clients import CLIENTS, NOT_USE, RUNTIMES, client_class

DOCKER_28 = (
    "docker/28.4.0 go/go1.24.7 git-commit/249d679 kernel/6.10.14-linuxkit os/linux arch/arm64 "
    "containerd-client/2.1.4+unknown storage-driver/overlayfs "
    "UpstreamClient(Docker-Client/28.4.0 \\(darwin\\))"
)
DOCKER_27 = (
    "docker/27.3.1 go/go1.22.7 git-commit/41ca978 kernel/6.8.0-51-generic os/linux arch/amd64 "
    "UpstreamClient(Docker-Client/27.3.1 \\(linux\\))"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"


@pytest.mark.parametrize(
    ("user_agent", "client"),
    [
        (DOCKER_27, "docker"),
        ("Docker-Client/24.0.7 (windows)", "docker"),
        ("moby/28.0.0", "docker"),
        ("containerd/v1.7.24", "containerd"),
        ("containerd/1.6.8+unknown", "containerd"),
        ("nerdctl/2.0.0", "containerd"),
        ("cri-o/1.31.2 go/go1.23.3 os/linux arch/amd64", "cri-o"),
        ("podman/5.3.1", "podman"),
        ("libpod/3.0.1", "podman"),
        ("Buildah/1.38.0", "podman"),
        ("skopeo/1.9.3", "podman"),
        ("containers/5.33.0 (github.com/containers/image)", "podman"),
        ("buildkit/v0.17", "buildkit"),
        ("kaniko/v1.23.2", "builder"),
        ("jib 2.8.0 jib-maven-plugin Google-HTTP-Java-Client/1.38.1 (gzip)", "builder"),
        ("werf/2.10.0", "builder"),
        ("ko/0.17.1 go-containerregistry/v0.20.2", "builder"),
        ("apko/v0.20.0 go-containerregistry/v0.20.2", "builder"),
        ("bazel/7.4.1", "builder"),
        ("rules_oci/2.0.0", "builder"),
        ("rules_docker", "builder"),
        (".NET Container Library v9.0.100", "builder"),
        ("Helm/3.16.3", "helm"),
        ("oras/1.2.1+Homebrew", "oras"),
        ("oras-go", "oras"),
        ("crane/v0.20.2 go-containerregistry/v0.20.2", "crane"),
        ("crane/v0.20.2", "crane"),
        ("gcrane/v0.20.2", "crane"),
        ("krane/v0.20.2", "crane"),
        ("go-containerregistry/v0.20.2", "crane"),
        ("cosign/v2.4.1 (linux; amd64) go-containerregistry/v0.20.2", "crane"),
        ("regclient/regctl (v0.8.0)", "crane"),
        ("regctl", "crane"),
        ("regclient/regclient (v0.8.0)", "crane"),
        ("cosign/v2.4.1 (linux; amd64)", "crane"),
        ("trivy/0.57.1 go-containerregistry/v0.20.2", "scanner"),
        ("syft/1.18.0 go-containerregistry/v0.20.2", "scanner"),
        ("grype/0.85.0", "scanner"),
        ("clair/v4.8.0", "scanner"),
        ("anchore-engine", "scanner"),
        ("Snyk/1.0", "scanner"),
        ("docker-scout/1.16.1", "scanner"),
        ("harbor-scanner-trivy/0.32.0", "scanner"),
        ("neuvector", "scanner"),
        ("StackRox Scanner/4.6", "scanner"),
        ("sysdig-cli-scanner/1.18.0", "scanner"),
        ("Twistlock/22.12", "scanner"),
        ("Watchtower/v1.7.1", "updater"),
        ("diun/2.0.0 go/1.14.2 Linux", "updater"),
        ("wud/8.0.1", "updater"),
        ("whats-up-docker/6.6.1", "updater"),
        ("Renovate/39.42.4 (https://github.com/renovatebot/renovate)", "updater"),
        ("renovate/39.42.4", "updater"),
        ("RenovateBot/37.0.0", "updater"),
        ("dependabot-core/0.290.0", "updater"),
        ("keel.sh/0.19", "updater"),
        ("argocd-image-updater: v0.15.1 linux/amd64", "updater"),
        ("image-reflector-controller/v0.33.0", "updater"),
        ("image-automation-controller/v0.39.0", "updater"),
        ("updatecli/v0.88.0", "updater"),
        ("Artifactory/7.77.5 77705900", "proxy"),
        ("Nexus/3.68.1-02 (PRO; Linux; 5.15; amd64; 11.0.23)", "proxy"),
        ("harbor-registry-client", "proxy"),
        ("zot", "proxy"),
        ("harbor-replication-service", "replication"),
        ("regclient/regsync (v0.8.0)", "replication"),
        ("regsync", "replication"),
        ("image-syncer", "replication"),
        ("dregsy/0.5.2", "replication"),
        ("oc-mirror/4.17", "replication"),
        ("gitlab-runner 17.6.0 linux/amd64", "ci"),
        ("GitHub-Actions", "ci"),
        ("Jenkins/2.479", "ci"),
        ("drone/2.24", "ci"),
        ("tekton-pipelines/v0.65", "ci"),
        ("woodpecker/2.7", "ci"),
        ("concourse/7.11", "ci"),
        ("TeamCity Server 2024.07", "ci"),
        ("buildkite-agent/3.87.0", "ci"),
        (FIREFOX, "browser"),
        ("curl/8.11.0", "other"),
        ("python-requests/2.34.2", "other"),
        ("Go-http-client/1.1", "other"),
        ("", "other"),
    ],
    ids=lambda text: text[:36] or "nothing",
)
def test_the_user_agent_tells_the_class(user_agent: str, client: str) -> None:
    assert client_class(user_agent) == client
    assert client in CLIENTS


@pytest.mark.parametrize(
    ("user_agent", "client"),
    [
        pytest.param(DOCKER_28, "docker", id="docker with containerd's image store is docker"),
        pytest.param(
            "docker/29.2.1 containerd-client/2.2.1+unknown", "docker", id="also in version 29"
        ),
        pytest.param("jib 3.4.4 (docker)", "builder", id="what is in brackets does not go first"),
        pytest.param(f"{FIREFOX} docker/27", "browser", id="a browser stays one"),
        pytest.param("acme/1.0 (trivy/0.57)", "scanner", id="an unknown product may name its tool"),
        pytest.param("Go-http-client/1.1 skopeo/1.9", "podman", id="also behind a library"),
        pytest.param("DOCKER/27.3.1", "docker", id="capitals do not matter"),
        pytest.param("kokoro/1.0", "other", id="ko is no part of a word"),
        pytest.param("myko/1.0", "other", id="ko is no end of a word"),
        pytest.param("ko_x/1.0", "other", id="ko is no part of a name with underscores"),
        pytest.param("x_ko/1.0", "other", id="ko is no end of a name with underscores"),
        pytest.param("ko2/1.0", "other", id="ko is no name with a digit"),
        pytest.param("2ko/1.0", "other", id="a digit before ko makes another name"),
        pytest.param("xnetxcontainer library", "other", id="a dot is a dot"),
    ],
)
def test_the_first_known_name_decides(user_agent: str, client: str) -> None:
    assert client_class(user_agent) == client


@pytest.mark.parametrize(
    ("user_agent", "client"),
    [
        pytest.param("rns-migrate/1.0", "own", id="the migration worker"),
        pytest.param("RNS-Migrate/1.0", "own", id="in capitals"),
        pytest.param("rns-migrate/1.0 (skopeo)", "own", id="whatever it has with it"),
        pytest.param("docker/27.3.1 rns-migrate/1.0", "docker", id="not behind another"),
        pytest.param("rns-migrate", "other", id="not without a version"),
    ],
)
def test_our_own_worker_is_known_by_the_beginning(user_agent: str, client: str) -> None:
    assert client_class(user_agent) == client


def test_our_own_worker_is_no_class_to_choose() -> None:
    assert (
        *("scanner", "replication", "updater", "proxy", "ci", "builder", "buildkit", "helm"),
        *("oras", "cri-o", "containerd", "podman", "crane", "docker", "browser", "other"),
    ) == CLIENTS


def test_container_runtimes_are_those_that_run_images() -> None:
    assert {"docker", "containerd", "cri-o", "podman"} == RUNTIMES


def test_a_pull_by_whoever_pulls_everything_is_no_use() -> None:
    assert {"scanner", "replication", "updater", "own"} == NOT_USE


@given(user_agent=st.text())
def test_every_text_has_a_class(user_agent: str) -> None:
    assert client_class(user_agent) in (*CLIENTS, "own")
