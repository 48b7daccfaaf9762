"""What must fit together in the configuration: listening, tokens, names, files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.settings import Registry, Settings, parse_bind

SHIPPED = Path(__file__).parents[3] / "config.yml"

Load = Callable[..., Settings]
Refusal = Callable[..., str]


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        (":8000", ("0.0.0.0", 8000)),
        ("[::1]:8000", ("::1", 8000)),
        ("[::]:8000", ("::", 8000)),
        ("[fe80::1%eth0]:8000", ("fe80::1%eth0", 8000)),
        ("localhost:0", ("localhost", 0)),
        ("rns.example:65535", ("rns.example", 65535)),
    ],
)
def test_an_address_and_its_port_are_told_apart(bind: str, expected: tuple[str, int]) -> None:
    assert parse_bind(bind) == expected


@pytest.mark.parametrize(
    "bind",
    [
        "",
        "8000",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:\N{FULLWIDTH DIGIT EIGHT}",
        " 127.0.0.1:8000",
        "127.0.0.1:8000\n",
        "127.0.0.1:80:80",
        "::1:8000",
        "::1",
        "[::1]",
        "[::1:8000",
        "::1]:8000",
        "[]:8000",
        "[::1]8000",
        "unix:/run/rns.sock",
        "http://127.0.0.1:8000",
    ],
)
def test_what_is_no_address_and_port_is_refused(bind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_bind(bind)

    assert str(caught.value) == f"server.bind: expected address:port, got {bind!r}"


@pytest.mark.parametrize(
    "bind", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "[0:0:0:0:0:0:0:1]:1"]
)
def test_loopback_needs_no_token(load: Load, bind: str) -> None:
    assert load("", RNS_SERVER__BIND=bind).server.bind == bind


@pytest.mark.parametrize(
    "bind",
    [
        "0.0.0.0:1",
        ":1",
        "[::]:1",
        "10.0.0.1:1",
        "[2001:db8::1]:1",
        "[::ffff:10.0.0.1]:1",
        "rns.example:1",
        "localhost.example:1",
        "127.0.0.1.example:1",
        "0:1",
    ],
)
def test_beyond_loopback_a_token_is_needed(load: Load, refusal: Refusal, bind: str) -> None:
    refused = refusal("", RNS_SERVER__BIND=bind)
    loaded = load("", RNS_SERVER__BIND=bind, RNS_REGISTRIES__0__TOKEN="token")

    assert refused == (
        f"registries[0].token: is needed to listen on {bind}; "
        "set one, or notifications.allow_anonymous: true to take events from anybody"
    )
    assert loaded.server.bind == bind


def test_beyond_loopback_every_registry_needs_a_token(refusal: Refusal) -> None:
    message = refusal("registries: [{token: a}, {name: b}]", RNS_SERVER__BIND="0.0.0.0:1")

    assert message.startswith("registries[1].token: is needed to listen on 0.0.0.0:1;")


def test_allow_anonymous_lets_it_listen_anywhere_without_token(load: Load) -> None:
    loaded = load("notifications: {allow_anonymous: true}", RNS_SERVER__BIND=":8000")

    assert loaded.registries == [Registry()]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("{}, {}", "registries[1].name: another registry has the same"),
        ("{name: a}, {name: b}, {name: a}", "registries[2].name: another registry has the same"),
        ("{token: t}, {name: b, token: t}", "registries[1].token: another registry has the same"),
    ],
    ids=["default twice", "name", "token"],
)
def test_two_registries_with_one_name_or_token_are_refused(
    refusal: Refusal, entries: str, message: str
) -> None:
    assert refusal(f"registries: [{entries}]") == message


def test_two_registries_with_one_token_in_files_are_refused(
    refusal: Refusal, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("token\n")

    message = refusal(f"registries: [{{token: token}}, {{name: b, token_file: {tmp_path}/token}}]")

    assert message == "registries[1].token: another registry has the same"


def test_several_registries_may_have_no_token(load: Load) -> None:
    assert len(load("registries: [{}, {name: b}]").registries) == 2


@pytest.mark.parametrize("name", ["a", "0", "eu-west.1_x", "n" * 63])
def test_a_registry_has_a_plain_name(load: Load, name: str) -> None:
    assert load(f"registries: [{{name: '{name}'}}]").registries[0].name == name


@pytest.mark.parametrize(
    "name", ["", "A", "-a", ".a", "a b", "a:b", "a/b", "ä", "n" * 64, "a\\n", "$a"]
)
def test_a_registry_with_another_name_is_refused(refusal: Refusal, name: str) -> None:
    assert refusal(f'registries: [{{name: "{name}"}}]') == (
        "registries[0].name: expected up to 63 of a-z, 0-9, dot, _ and -, "
        "beginning with a letter or digit"
    )


@pytest.mark.parametrize("token", ["é", "a b", " a", "a\\n", "a\\0b", "\\x7f"])
def test_a_token_that_no_header_can_hold_is_refused(refusal: Refusal, token: str) -> None:
    message = refusal(f'registries: [{{token: "{token}"}}]')

    assert message == "registries[0].token: only ASCII without spaces can go into a header"
    message = refusal(f'server: {{metrics_token: "{token}"}}')
    assert message == "server.metrics_token: only ASCII without spaces can go into a header"


def test_a_key_for_sessions_that_can_be_guessed_is_refused(load: Load, refusal: Refusal) -> None:
    assert refusal(f"server: {{secret_key: {15 * 'k'}}}") == (
        "server.secret_key: expected at least 16 characters, as openssl rand -hex 32 makes: "
        "whoever guesses it can be anybody"
    )
    assert load(f"server: {{secret_key: {16 * 'k'}}}").server.secret_key == 16 * "k"


@pytest.mark.parametrize("key", ["url", "debug_url"])
def test_a_password_in_a_url_that_pages_show_is_refused(refusal: Refusal, key: str) -> None:
    text = refusal(f'registries: [{{{key}: "http://user:secret@registry:5001"}}]')

    assert text == f"registries[0].{key}: expected no user and password in it; it is shown"


@pytest.mark.parametrize(
    ("given", "missing"), [("certificate", "private_key"), ("private_key", "certificate")]
)
def test_one_tls_file_alone_is_refused(refusal: Refusal, given: str, missing: str) -> None:
    message = refusal(f"server: {{tls: {{{given}: {SHIPPED}}}}}")

    assert message == f"server.tls.{missing}: is needed too; TLS takes both files"


@pytest.mark.parametrize("missing", ["certificate", "private_key"])
def test_a_tls_file_that_does_not_exist_is_refused(refusal: Refusal, missing: str) -> None:
    files = {"certificate": str(SHIPPED), "private_key": str(SHIPPED)} | {missing: "/nowhere.pem"}

    message = refusal(f"server: {{tls: {files}}}")

    assert message == f"server.tls.{missing}: no such file: /nowhere.pem"


@pytest.mark.parametrize(
    ("uri", "is_embedded"),
    [("embedded", True), ("mongodb://a,b/?replicaSet=rs", False), ("mongodb+srv://a", False)],
)
def test_mongodb_is_embedded_or_a_uri(load: Load, uri: str, is_embedded: bool) -> None:
    assert load(f"mongodb: {{uri: '{uri}'}}").is_embedded is is_embedded


@pytest.mark.parametrize(
    "uri", ["", "Embedded", "localhost:27017", "http://h", "mongodb:/h", " mongodb://h"]
)
def test_another_mongodb_uri_is_refused(refusal: Refusal, uri: str) -> None:
    message = refusal(f"mongodb: {{uri: '{uri}'}}")

    assert message == "mongodb.uri: expected embedded, mongodb://… or mongodb+srv://…"


def test_docker_auth_cannot_be_embedded(refusal: Refusal) -> None:
    message = refusal("docker_auth: {uri: embedded}")

    assert message == "docker_auth.uri: expected nothing, mongodb://… or mongodb+srv://…"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().server.bind = "0.0.0.0:1"  # type: ignore[misc]


@pytest.mark.parametrize("path", ["/", "rns", "/rns/", "//x", "/a b", "https://x", "/a\n"])
def test_a_base_path_that_is_none_is_refused(refusal: Refusal, path: str) -> None:
    told = refusal("", RNS_SERVER__BASE_PATH=path)

    assert told.startswith("server.base_path: expected a path without a slash at its end")


@pytest.mark.parametrize("path", ["", "/rns", "/a/b-c_d.e~f"])
def test_a_base_path_is_a_path(load: Load, path: str) -> None:
    assert load("", RNS_SERVER__BASE_PATH=path).server.base_path == path


@pytest.mark.parametrize("key", ["FORMAT", "LEVEL"])
def test_a_log_that_is_not_known_is_refused(refusal: Refusal, key: str) -> None:
    told = refusal("", **{f"RNS_LOG__{key}": "xml"})

    assert told.startswith(f"log.{key.lower()}: ")
