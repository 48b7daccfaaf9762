"""The configuration from variables of the environment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.settings import Access, DockerAuth, MongoDB, Notifications, Registry, Server, Settings

Load = Callable[..., Settings]
Refusal = Callable[..., str]

NUMERIC = "1000000000000000e5"


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("RNS_SERVER__WORKERS", "3", Settings(server=Server(workers=3))),
        ("RNS_SERVER__BIND", "[::1]:80", Settings(server=Server(bind="[::1]:80"))),
        ("RNS_SERVER__BIND", "localhost:80", Settings(server=Server(bind="localhost:80"))),
        ("RNS_SERVER__TLS__CERTIFICATE", "", Settings()),
        ("RNS_SERVER__SECRET_KEY", NUMERIC, Settings(server=Server(secret_key=NUMERIC))),
        ("RNS_MONGODB__URI", "mongodb://db", Settings(mongodb=MongoDB(uri="mongodb://db"))),
        ("RNS_MONGODB__DATABASE", "123", Settings(mongodb=MongoDB(database="123"))),
        ("RNS_MONGODB__DATABASE", "no", Settings(mongodb=MongoDB(database="no"))),
        ("RNS_MONGODB__DATA_DIR", "~", Settings(mongodb=MongoDB(data_dir="~"))),
        ("RNS_DOCKER_AUTH__SERVICE", "a: b", Settings(docker_auth=DockerAuth(service="a: b"))),
        ("RNS_ACCESS__OWN_NAMESPACE", "no", Settings(access=Access(own_namespace=False))),
        (
            "RNS_ACCESS__ADMINISTRATORS",
            "[a, b]",
            Settings(access=Access(administrators=["a", "b"])),
        ),
        (
            "RNS_NOTIFICATIONS__RETENTION_DAYS",
            "30",
            Settings(notifications=Notifications(retention_days=30)),
        ),
        ("RNS_REGISTRIES", "[{name: eu}]", Settings(registries=[Registry(name="eu")])),
        ("RNS_REGISTRIES__0__NAME", "2026", Settings(registries=[Registry(name="2026")])),
        (
            "RNS_REGISTRIES__0__HOSTS",
            "[a:1, b]",
            Settings(registries=[Registry(hosts=["a:1", "b"])]),
        ),
        ("RNS_REGISTRIES__0__TOKENS", "a\n 1 ", Settings(registries=[Registry(tokens=["a", "1"])])),
        ("RNS_REGISTRIES__0__TOKENS", "[a, b]", Settings(registries=[Registry(tokens=["a", "b"])])),
        ("RNS_REGISTRIES__0__TOKENS", "", Settings()),
        ("RNS_REGISTRIES__0__INSECURE", "true", Settings(registries=[Registry(insecure=True)])),
        ("RNS_TEST_MONGODB_URI", "mongodb://elsewhere", Settings()),
        ("rns_server__workers", "3", Settings()),
        ("RNSX_SERVER__WORKERS", "3", Settings()),
    ],
)
def test_a_variable_sets_its_key(load: Load, variable: str, text: str, expected: Settings) -> None:
    assert load("", **{variable: text}) == expected


@pytest.mark.parametrize(
    "text", ["123", "1e5", "yes", "null", "0x10", "~", "*a", "{", "2026-13-45"]
)
@pytest.mark.parametrize("key", ["token", "password"])
def test_a_secret_of_the_environment_is_text_whatever_it_looks_like(
    load: Load, key: str, text: str
) -> None:
    loaded = load("", **{f"RNS_REGISTRIES__0__{key.upper()}": text})

    assert getattr(loaded.registries[0], key) == text


def test_what_kubernetes_sets_for_a_service_of_this_name_is_no_key(load: Load) -> None:
    variables = {
        "RNS_SERVICE_HOST": "10.0.0.1",
        "RNS_SERVICE_PORT": "8000",
        "RNS_SERVICE_PORT_HTTP": "8000",
        "RNS_PORT": "tcp://10.0.0.1:8000",
        "RNS_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "RNS_PORT_8000_TCP_PROTO": "tcp",
        "RNS_PORT_8000_TCP_PORT": "8000",
        "RNS_PORT_8000_TCP_ADDR": "10.0.0.1",
    }

    assert load("", **variables) == Settings()


def test_the_environment_goes_before_the_file(load: Load) -> None:
    text = "server: {workers: 5, threads: 6}\nregistries: [{name: eu, token: old}, {name: us}]"

    loaded = load(
        text,
        RNS_SERVER__WORKERS="3",
        RNS_REGISTRIES__0__TOKEN="new",
        RNS_REGISTRIES__2__NAME="asia",
    )

    assert loaded.server == Server(workers=3, threads=6)
    assert loaded.registries == [
        Registry(name="eu", token="new"),
        Registry(name="us"),
        Registry(name="asia"),
    ]


def test_twelve_registries_can_come_from_the_environment(load: Load) -> None:
    loaded = load("", **{f"RNS_REGISTRIES__{index}__NAME": f"r{index}" for index in range(12)})

    assert [registry.name for registry in loaded.registries] == [f"r{i}" for i in range(12)]


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("RNS_NOPE", "1", "RNS_NOPE: no such key"),
        ("RNS_", "1", "RNS_: no such key"),
        ("RNS_SERVER_BIND", ":80", "RNS_SERVER_BIND: no such key"),
        ("RNS_PORTS", "80", "RNS_PORTS: no such key"),
        ("RNS_SERVICE__HOST", "x", "RNS_SERVICE__HOST: no such key"),
        ("RNS_SERVER__NOPE", "1", "server.nope: unknown key"),
        ("RNS_SERVER", "3", "server: expected a section, got a whole number"),
        ("RNS_SERVER__WORKERS", "many", "server.workers: expected a whole number, got text"),
        ("RNS_SERVER__WORKERS", "", "server.workers: expected a whole number, got text"),
        ("RNS_SERVER__WORKERS", "2026-13-45", "server.workers: expected a whole number, got text"),
        ("RNS_SERVER__WORKERS", "[" * 1100, "server.workers: expected a whole number, got text"),
        ("RNS_SERVER__BIND__X", "1", "server.bind: expected text, got a section"),
        ("RNS_ACCESS__ADMINISTRATORS", "root", "access.administrators: expected a list, got text"),
        ("RNS_REGISTRIES__0", "x", "RNS_REGISTRIES__0: no such key"),
        (
            "RNS_REGISTRIES__X__NAME",
            "x",
            "RNS_REGISTRIES__X__NAME: x is not an entry of the list (0 to 0)",
        ),
        (
            "RNS_REGISTRIES__2__NAME",
            "x",
            "RNS_REGISTRIES__2__NAME: 2 is not an entry of the list (0 to 0)",
        ),
        (
            "RNS_REGISTRIES__-1__NAME",
            "x",
            "RNS_REGISTRIES__-1__NAME: -1 is not an entry of the list (0 to 0)",
        ),
        (
            "RNS_REGISTRIES__²__NAME",
            "x",
            "RNS_REGISTRIES__²__NAME: ² is not an entry of the list (0 to 0)",
        ),
    ],
    ids=lambda value: value[:30],
)
def test_a_variable_that_does_not_fit_is_refused(
    refusal: Refusal, variable: str, text: str, message: str
) -> None:
    assert refusal("", **{variable: text}) == message


def test_a_variable_below_a_value_is_refused(refusal: Refusal) -> None:
    message = refusal("server: {bind: 'a:1'}", RNS_SERVER__BIND__X__Y="1")

    assert message == "RNS_SERVER__BIND__X__Y: no such key"
