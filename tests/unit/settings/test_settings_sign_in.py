"""Who may say that somebody signed in: docker_auth's token server, and a proxy's header."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.settings import Settings

Load = Callable[..., Settings]
Refusal = Callable[..., str]


def test_nobody_but_the_accounts_collection_tells_who_signs_in_unless_asked_for(
    load: Load,
) -> None:
    settings = load()

    assert settings.docker_auth.token_url == ""
    assert settings.access.sign_in_header == ""
    assert settings.access.sign_in_from == ["127.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    "url",
    [
        "https://auth.example.org:5001/auth",
        "http://127.0.0.1:5001/auth",
        "https://auth.example.org/jwt/auth?client_id=docker",
        "https://[2001:db8::1]/auth",
    ],
)
def test_a_token_server_is_a_url(load: Load, url: str) -> None:
    assert load(f"docker_auth: {{token_url: '{url}'}}").docker_auth.token_url == url


@pytest.mark.parametrize(
    "url",
    [
        "auth.example.org:5001/auth",
        "ftp://auth.example.org/",
        "https://",
        "https:///auth",
        "https://user:secret@auth.example.org/auth",
        "https://user@auth.example.org/auth",
        "https://auth.example.org/auth#x",
        "https://auth.example.org:port/auth",
        "https://auth.example.org:0/auth",
        "https://auth.example.org/a uth",
        "https://[2001:db8::1/auth",
    ],
)
def test_what_is_no_url_of_a_token_server_is_refused_without_its_secrets(
    refusal: Refusal, url: str
) -> None:
    message = refusal(f"docker_auth: {{token_url: '{url}'}}")

    assert message.startswith("docker_auth.token_url: expected as https://")
    assert "secret" not in message


def test_accounts_are_in_one_place(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text("")
    message = refusal(
        f"docker_auth: {{token_url: 'https://a/auth', htpasswd: '{tmp_path}/htpasswd'}}"
    )

    assert message == "docker_auth.token_url: htpasswd is given too; keep one of the two"


@pytest.mark.parametrize("key", ["ca_file", "htpasswd"])
def test_a_file_that_does_not_exist_is_refused(refusal: Refusal, key: str) -> None:
    message = refusal(f"docker_auth: {{{key}: /nowhere}}")

    assert message == f"docker_auth.{key}: no such file: /nowhere"


def test_an_acl_file_may_come_later(load: Load) -> None:
    assert load("docker_auth: {acl_file: /nowhere}").docker_auth.acl_file == "/nowhere"


# The header


def test_the_header_of_a_proxy_needs_a_proxy(load: Load, refusal: Refusal) -> None:
    given = "access: {sign_in_header: X-Forwarded-User}"

    assert refusal(given).startswith(
        "access.sign_in_header: needs server.trusted_proxies of 1 or more"
    )
    assert load(f"{given}\nserver: {{trusted_proxies: 1}}").access.sign_in_header


@pytest.mark.parametrize(
    "header",
    [
        "Authorization",
        "cookie",
        "Host",
        "X-Forwarded-For",
        "x-forwarded-host",
        "X-Forwarded-Proto",
        "Proxy-Authorization",
        "Content-Type",
        "User-Agent",
        "X-CSRFToken",
        "X_Forwarded_User",
        "X-Forwarded-User:",
        "X Forwarded User",
        "Ünï",
    ],
)
def test_a_header_that_says_something_else_is_refused(refusal: Refusal, header: str) -> None:
    message = refusal(f"access: {{sign_in_header: '{header}'}}\nserver: {{trusted_proxies: 1}}")

    assert message.startswith("access.sign_in_header: expected the header that names the account")


@pytest.mark.parametrize("text", ["proxy.example", "10.0.0.0/33", "10.0.0.1/8", ""])
def test_a_proxy_is_an_address_or_a_network(refusal: Refusal, text: str) -> None:
    message = refusal(f"access: {{sign_in_from: ['10.0.0.1', '{text}']}}")

    assert message == "access.sign_in_from[1]: expected an address or CIDR, as 10.0.0.5"


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0"])
def test_everybody_is_no_proxy(refusal: Refusal, text: str) -> None:
    message = refusal(f"access: {{sign_in_from: ['{text}']}}")

    assert message.startswith("access.sign_in_from[0]: is everybody")


def test_a_header_that_nobody_may_send_is_a_mistake(refusal: Refusal) -> None:
    message = refusal(
        "access: {sign_in_header: X-User, sign_in_from: []}\nserver: {trusted_proxies: 1}"
    )

    assert message == "access.sign_in_from: name the addresses of the proxies"


def test_the_addresses_come_from_the_environment_too(load: Load) -> None:
    settings = load(
        "server: {trusted_proxies: 1}",
        RNS_ACCESS__SIGN_IN_HEADER="X-User",
        RNS_ACCESS__SIGN_IN_FROM='["10.0.0.5", "2001:db8::/64"]',
    )

    assert settings.access.sign_in_from == ["10.0.0.5", "2001:db8::/64"]
