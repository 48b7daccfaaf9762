"""config.yml, the environment and secret files, as one checked value."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import ConfigError
from app.settings import Registry, Settings, load_settings, parse_bind

SHIPPED = Path(__file__).parents[2] / "config.yml"


def load(tmp_path: Path, text: str, **environ: str) -> Settings:
    file = tmp_path / "config.yml"
    file.write_text(text)
    return load_settings(file, environ)


def test_the_shipped_file_holds_the_defaults() -> None:
    assert load_settings(SHIPPED, {}) == Settings()


def test_no_file_means_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert load_settings(environ={}) == Settings()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sever: {}", "sever"),
        ("server: {foo: 1}", "server.foo"),
        ("server: {tls: {foo: 1}}", "server.tls.foo"),
        ("registries: [{nmae: x}]", "registries"),
        ("server: {workers: many}", "server.workers"),
        ("server: {workers: 0}", "server.workers"),
        ("server: 1", "server"),
        ("access: {administrators: admin}", "access.administrators"),
        ("server: {bind: nowhere}", "server.bind"),
        ("server: {bind: 'a:99999'}", "server.bind"),
        ("server: {workers: 1, workers: 2}", "server.workers"),
        ("mongodb: {uri: 'http://x'}", "mongodb.uri"),
        ("docker_auth: {uri: embedded}", "docker_auth.uri"),
        ("registries: []", "registries"),
        ("registries: [{name: a}, {name: a}]", "registries[1].name"),
        ("registries: [{name: a, token: t}, {name: b, token: t}]", "registries[1].token"),
        ("registries: [{name: 'A B'}]", "registries"),
        ("server: {bind: '0.0.0.0:8000'}", "registries[0].token"),
        ("server: {bind: '[::]:8000'}", "registries[0].token"),
        ("server: {tls: {certificate: x}}", "server.tls.private_key"),
        ("server: {tls: {certificate: /none, private_key: /none}}", "server.tls.certificate"),
        ("registries: [{token: a, token_file: /none}]", "registries[0].token_file"),
        ("registries: [{token_file: /none}]", "registries[0].token_file"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(tmp_path: Path, text: str, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)

    assert str(caught.value).startswith(path)


@pytest.mark.parametrize("text", ["[", "- a", "just text", "a: b: c"])
def test_what_is_no_mapping_in_yaml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.yml"):
        load(tmp_path, text)


@pytest.mark.parametrize("text", ["", "server:\n", "registries:\n"])
def test_an_empty_section_keeps_its_defaults(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text) == Settings()


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        "server: {workers: 3, bind: '127.0.0.1:1'}\nregistries: [{name: a}]",
        RNS_SERVER__WORKERS="5",
        RNS_REGISTRIES__0__TOKEN="1e5",
        RNS_REGISTRIES__1__NAME="b",
        RNS_ACCESS__ADMINISTRATORS="[x, y]",
        RNS_ACCESS__OWN_NAMESPACE="false",
        OTHER="ignored",
    )

    assert (settings.server.workers, settings.server.bind) == (5, "127.0.0.1:1")
    assert settings.registries == [Registry(name="a", token="1e5"), Registry(name="b")]
    assert settings.access.administrators == ["x", "y"]
    assert not settings.access.own_namespace


def test_an_unknown_variable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"server\.foo"):
        load(tmp_path, "", RNS_SERVER__FOO="1")


def test_the_file_may_be_named_by_the_environment_and_must_then_exist(tmp_path: Path) -> None:
    file = tmp_path / "other.yml"
    file.write_text("server: {workers: 7}")

    assert load_settings(environ={"RNS_CONFIG": str(file)}).server.workers == 7
    with pytest.raises(ConfigError, match=r"none\.yml"):
        load_settings(environ={"RNS_CONFIG": str(tmp_path / "none.yml")})


def test_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret-token\n")
    (tmp_path / "uri").write_text("mongodb://user:pass@host/")

    settings = load(
        tmp_path,
        f"mongodb: {{uri_file: {tmp_path}/uri}}",
        RNS_REGISTRIES__0__TOKEN_FILE=f"{tmp_path}/token",
    )

    assert settings.registries[0].token == "secret-token"
    assert settings.mongodb.uri == "mongodb://user:pass@host/"


def test_an_empty_secret_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")

    with pytest.raises(ConfigError, match="is empty"):
        load(tmp_path, f"registries: [{{token_file: {tmp_path}/token}}]")


@pytest.mark.parametrize(
    "text",
    [
        "mongodb: {uri: 'http://user:hunter2@x'}",
        "registries: [{name: a, token: hunter2}, {name: b, token: hunter2}]",
        "registries: [{token: [hunter2]}]",
        "registries: [{token: hunter2, token_file: /none}]",
        "server: {secret_key: [hunter2]}",
    ],
)
def test_no_error_quotes_a_secret(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "localhost:8000", "[::1]:8000"])
def test_loopback_needs_no_token(tmp_path: Path, bind: str) -> None:
    assert load(tmp_path, f"server: {{bind: '{bind}'}}").server.bind == bind


def test_anonymous_events_can_be_allowed_beyond_loopback(tmp_path: Path) -> None:
    text = "server: {bind: ':8000'}\nnotifications: {allow_anonymous: true}"

    assert parse_bind(load(tmp_path, text).server.bind) == ("0.0.0.0", 8000)
