"""The company: its teams and their services, clusters, robots and what the registry mirrors."""

from __future__ import annotations

from typing import NamedTuple

HOST = "registry.example.com"


class Runtime(NamedTuple):
    """What a base image holds; megabytes are those of its layers, compressed."""

    tag: str
    megabytes: tuple[float, ...]


class Service(NamedTuple):
    """What one team releases, from one repository."""

    repository: str
    runtime: str  # key of RUNTIMES
    megabytes: float  # of its dependencies, compressed
    since: int  # year of its first release: a new major version comes each year
    weeks: int  # from release to release
    weekday: int  # of its releases, 0 is Monday
    clusters: tuple[str, ...]  # keys of CLUSTERS where it runs in production
    architectures: tuple[str, ...] = ("amd64",)


class Team(NamedTuple):
    """Who builds and releases the services of a namespace."""

    namespace: str
    builder: str  # key of BUILDERS
    people: tuple[str, ...]
    services: tuple[Service, ...]
    signs: bool = False  # its releases have a signature and an SBOM


class Agent(NamedTuple):
    """A tool; `head_first`: it asks for the digest of a tag before it gets by digest."""

    user_agent: str
    head_first: bool = True


class Client(NamedTuple):
    """Who talks to the registry, from where, with what."""

    actor: str
    address: str  # without port
    agent: Agent
    architecture: str = "amd64"


class Mirrored(NamedTuple):
    """A public image that is copied whenever its tag moves; weeks are those between two moves."""

    repository: str
    tag: str
    weeks: int
    megabytes: tuple[float, ...]


class Chart(NamedTuple):
    """A Helm chart, released every so many weeks."""

    repository: str
    weeks: int
    weekday: int


BOTH = ("amd64", "arm64")
FRA, AMS, DEPOTS = "frankfurt", "amsterdam", "depots"

RUNTIMES = {
    "python": Runtime("3.12", (28.2, 4.6, 15.7)),
    "node": Runtime("22", (28.2, 49.3, 1.3)),
    "java": Runtime("21", (28.2, 12.4, 52.8)),
    "go": Runtime("static", (0.4, 2.1)),
}

TEAMS = (
    Team(
        "shop",
        "buildkit",
        ("anna.berg", "tomasz.nowak", "leila.haddad"),
        (
            Service("shop/web", "node", 61, 2018, 1, 1, (FRA, AMS), BOTH),
            Service("shop/checkout", "java", 74, 2019, 1, 1, (FRA, AMS), BOTH),
            Service("shop/catalogue", "java", 68, 2019, 1, 2, (FRA, AMS)),
            Service("shop/cart", "go", 14, 2021, 2, 3, (FRA,), BOTH),
        ),
        signs=True,
    ),
    Team(
        "payments",
        "buildkit",
        ("miguel.santos", "ingrid.dahl"),
        (
            Service("payments/ledger", "java", 82, 2017, 2, 1, (FRA, AMS)),
            Service("payments/gateway", "go", 21, 2020, 1, 1, (FRA, AMS), BOTH),
            Service("payments/invoicing", "python", 57, 2020, 3, 2, (FRA,)),
        ),
        signs=True,
    ),
    Team(
        "platform",
        "buildkit",
        ("kofi.mensah", "sofie.peeters", "jan.dvorak"),
        (
            Service("platform/ingress", "go", 27, 2021, 3, 2, (FRA, AMS, DEPOTS), BOTH),
            Service("platform/ci-tools", "python", 190, 2019, 2, 0, ()),
        ),
    ),
    Team(
        "identity",
        "buildkit",
        ("clara.rossi", "emil.hansen"),
        (
            Service("identity/sso", "java", 91, 2018, 2, 2, (FRA, AMS)),
            Service("identity/directory", "go", 16, 2022, 3, 3, (FRA,)),
        ),
        signs=True,
    ),
    Team(
        "data",
        "kaniko",
        ("yuki.tanaka", "pierre.martin"),
        (
            Service("data/etl", "python", 210, 2020, 1, 3, (FRA,)),
            Service("data/airflow", "python", 340, 2021, 3, 1, (FRA,)),
            Service("data/reports", "python", 130, 2022, 2, 2, (FRA,)),
        ),
    ),
    Team(
        "search",
        "buildkit",
        ("olga.petrova", "david.klein"),
        (
            Service("search/api", "java", 63, 2020, 1, 2, (FRA, AMS), BOTH),
            Service("search/indexer", "java", 71, 2020, 2, 1, (FRA,)),
        ),
    ),
    Team(
        "logistics",
        "docker",
        ("lars.jensen", "fatima.zahra"),
        (
            Service("logistics/routing", "python", 96, 2019, 2, 3, (AMS,)),
            Service("logistics/labels", "go", 12, 2021, 3, 1, (AMS, DEPOTS), BOTH),
            Service("logistics/tracking", "node", 44, 2022, 1, 2, (AMS,)),
        ),
    ),
    Team(
        "warehouse",
        "docker",
        ("piotr.zielinski",),
        (
            Service("warehouse/picking", "node", 52, 2020, 2, 1, (DEPOTS,), BOTH),
            Service("warehouse/scanner-gateway", "go", 9, 2022, 3, 2, (DEPOTS,), BOTH),
        ),
    ),
    Team(
        "mobile",
        "kaniko",
        ("nina.keller", "hugo.lefevre"),
        (
            Service("mobile/api", "node", 58, 2021, 1, 3, (FRA, AMS)),
            Service("mobile/push", "go", 11, 2022, 3, 0, (FRA,)),
        ),
    ),
    Team(
        "crm",
        "kaniko",
        ("maria.costa",),
        (
            Service("crm/mailer", "python", 48, 2019, 1, 0, (FRA,)),
            Service("crm/profiles", "java", 66, 2021, 2, 2, (FRA,)),
        ),
    ),
    Team(
        "ml",
        "buildkit",
        ("arjun.mehta", "eva.novakova"),
        (
            Service("ml/recommender", "python", 2650, 2022, 2, 1, (FRA,)),
            Service("ml/features", "python", 410, 2022, 3, 3, (FRA,)),
        ),
    ),
    Team(
        "observability",
        "buildkit",
        ("ben.okafor",),
        (
            Service("observability/collector", "go", 38, 2021, 2, 0, (FRA, AMS, DEPOTS), BOTH),
            Service("observability/alerts", "go", 17, 2022, 3, 1, (FRA,)),
        ),
    ),
    Team(
        "web",
        "kaniko",
        ("ruth.adler",),
        (
            Service("web/handbook", "node", 23, 2020, 1, 3, (AMS,)),
            Service("web/careers", "node", 19, 2021, 3, 2, (AMS,)),
        ),
    ),
)
SERVICES = tuple(service for team in TEAMS for service in team.services)
TEAM_OF = {service.repository: team for team in TEAMS for service in team.services}

CHARTS = (
    Chart("charts/shop", 3, 0),
    Chart("charts/payments", 4, 2),
    Chart("charts/ingress", 3, 3),
    Chart("charts/observability", 4, 1),
)
MIRRORED = (
    Mirrored("mirror/library/postgres", "17", 3, (28.2, 9.1, 112.4)),
    Mirrored("mirror/library/redis", "7.4", 2, (28.2, 1.2, 16.3)),
    Mirrored("mirror/library/nginx", "1.27", 2, (28.2, 43.9)),
)

# Whose release is faulty, or whose tag moves back, in turn. These services release every week.
FAULTY = ("shop/checkout", "payments/gateway", "shop/web")
MOVED_BACK = ("search/api", "shop/catalogue", "mobile/api")

CONTAINERD = Agent("containerd/v1.7.22")
K3S = Agent("containerd/v1.7.21-k3s2")
CRIO = Agent("cri-o/1.30.4 go/go1.22.5 os/linux arch/amd64", head_first=False)
BUILDKIT = Agent("buildkit/v0.16")
KANIKO = Agent("kaniko/v1.23.2", head_first=False)
DOCKER = Agent(
    "docker/27.3.1 go/go1.22.7 git-commit/41ca978 kernel/6.8.0-47-generic os/linux arch/amd64"
    " UpstreamClient(Docker-Client/27.3.1 \\(linux\\))"
)
DOCKER_DESKTOP = Agent(
    "docker/27.2.0 go/go1.21.13 git-commit/3ab5c7d kernel/6.10.4-linuxkit os/linux arch/arm64"
    " UpstreamClient(Docker-Client/27.2.0 \\(darwin\\))"
)
PODMAN = Agent("containers/5.32.2 (github.com/containers/image)", head_first=False)
SKOPEO = Agent("skopeo/1.16.1", head_first=False)
HELM = Agent("Helm/3.16.2")
TRIVY = Agent("trivy/0.56.2", head_first=False)
COSIGN = Agent(
    "cosign/v2.4.1 (linux; amd64) go-containerregistry/v0.20.2 (linux; amd64)", head_first=False
)
ORAS = Agent("oras/1.2.0")

BUILDERS = {"buildkit": BUILDKIT, "kaniko": KANIKO, "docker": DOCKER}
STAGING = tuple(
    Client("k8s-staging", f"fd00:40:2::{node:x}", CONTAINERD) for node in range(0x11, 0x17)
)
CLUSTERS = {
    FRA: tuple(Client("k8s-frankfurt", f"10.40.1.{node}", CONTAINERD) for node in range(11, 18)),
    AMS: tuple(Client("ocp-amsterdam", f"10.44.0.{node}", CRIO) for node in range(21, 25)),
    DEPOTS: tuple(Client("k3s-depots", f"10.60.{site}.10", K3S, "arm64") for site in range(1, 4)),
}
SCANNER = Client("trivy", "10.50.0.12", TRIVY)
VERIFIER = Client("kyverno", "10.40.1.9", Agent("go-containerregistry/v0.20.2", head_first=False))
ARGOCD = Client("argocd", "10.40.1.7", HELM)
RENOVATE = Client("renovate", "10.30.0.40", Agent("RenovateBot/39.11.5"))
DIUN = Client("diun", "10.60.1.5", Agent("diun/4.28.0 go/1.22.6 linux"))
REGSYNC = Client("regsync", "10.50.0.20", Agent("regclient/regsync (v0.7.2)"))
CLEANUP = Client("registry-cleanup", "10.50.0.21", Agent("regclient/regctl (v0.7.2)"))

_TOOLS = (DOCKER, DOCKER_DESKTOP, DOCKER_DESKTOP, PODMAN, DOCKER, SKOPEO)
PEOPLE = {
    name: Client(
        name,
        f"10.20.{index % 4}.{40 + index}",
        _TOOLS[index % len(_TOOLS)],
        "arm64" if _TOOLS[index % len(_TOOLS)] is DOCKER_DESKTOP else "amd64",
    )
    for index, name in enumerate(name for team in TEAMS for name in team.people)
}


def runner_of(team: Team, agent: Agent, number: int) -> Client:
    """One of the team's CI runners, with the tool that it uses."""
    return Client(f"ci-{team.namespace}", f"10.30.{TEAMS.index(team) + 1}.{10 + number}", agent)
