"""Secrets of the configuration: their files, and that no error shows one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.settings import Registry, Settings

SECRET = "s3cret-Zq8-s3cret-Zq8"

Load = Callable[..., Settings]
Refusal = Callable[..., str]


@pytest.mark.parametrize(
    ("text", "find"),
    [
        ("server: {secret_key_file: FILE}", lambda loaded: loaded.server.secret_key),
        ("server: {metrics_token_file: FILE}", lambda loaded: loaded.server.metrics_token),
        ("mongodb: {uri_file: FILE}", lambda loaded: loaded.mongodb.uri),
        ("mongodb: {uri: embedded, uri_file: FILE}", lambda loaded: loaded.mongodb.uri),
        ("docker_auth: {uri: '', uri_file: FILE}", lambda loaded: loaded.docker_auth.uri),
        ("registries: [{token: '', token_file: FILE}]", lambda loaded: loaded.registries[0].token),
        (
            "registries: [{}, {name: b, password_file: FILE}]",
            lambda loaded: loaded.registries[1].password,
        ),
    ],
)
def test_a_secret_is_read_from_its_file_without_the_line_end(
    load: Load, tmp_path: Path, text: str, find: Callable[[Settings], str]
) -> None:
    file = tmp_path / "secret"
    file.write_text("mongodb://u:p@h/\n")

    assert find(load(text.replace("FILE", str(file)))) == "mongodb://u:p@h/"


def test_a_byte_order_mark_is_no_part_of_a_secret(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("abc\n", "utf-8-sig")

    assert load(f"registries: [{{token_file: {file}}}]").registries[0].token == "abc"


def test_a_secret_file_can_come_from_the_environment(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "123"
    file.write_text("0123\n")

    loaded = load("registries: [{name: eu}]", RNS_REGISTRIES__0__TOKEN_FILE=str(file))

    assert loaded.registries == [Registry(name="eu", token="0123", token_file=str(file))]


def test_an_empty_name_of_a_secret_file_is_no_file(load: Load) -> None:
    assert load("registries: [{token_file: ''}]", RNS_MONGODB__URI_FILE="") == Settings()


@pytest.mark.parametrize("content", ["", "\n", " \t\r\n"], ids=["empty", "line end", "blank"])
def test_an_empty_secret_file_is_refused(refusal: Refusal, tmp_path: Path, content: str) -> None:
    file = tmp_path / "secret"
    file.write_text(content)

    message = refusal(f"registries: [{{token_file: {file}}}]")

    assert message == "registries[0].token_file: the file secret is empty".replace(
        "secret", str(file).replace(f"{tmp_path}/", "")
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "server: {secret_key_file: /nowhere/s}",
            "server.secret_key_file: cannot be read: [Errno 2] No such file",
        ),
        (
            "registries: [{password_file: /}]",
            "registries[0].password_file: cannot be read: [Errno 21] Is a directory",
        ),
        (
            'registries: [{token_file: "a\\0b"}]',
            "registries[0].token_file: cannot be read: embedded null byte",
        ),
        (
            "registries: [{token_file: 5}]",
            "registries[0].token_file: expected text, got a whole number",
        ),
        ("registries: [{token_file: [a]}]", "registries[0].token_file: expected text, got a list"),
    ],
    ids=["missing", "directory", "null byte", "number", "list"],
)
def test_a_secret_file_that_cannot_be_read_is_refused(
    refusal: Refusal, text: str, message: str
) -> None:
    assert refusal(text).startswith(message)


def test_a_secret_and_its_file_together_are_refused(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)

    message = refusal(
        f"registries: [{{token: {SECRET}}}]", RNS_REGISTRIES__0__TOKEN_FILE=f"{tmp_path}/secret"
    )

    assert message == "registries[0].token_file: token is given too; keep one of the two"


def test_the_password_of_a_migration_is_read_when_it_is_needed(load: Load) -> None:
    text = """
migrations:
  - {name: dc2, source: {url: "https://old"}, target: {url: "https://new", password_file: /nowhere}}
"""

    (migration,) = load(text, RNS_MIGRATIONS__0__SOURCE__PASSWORD="123").migrations

    assert (migration.source.password, migration.target.password_file) == ("123", "/nowhere")


@pytest.mark.parametrize(
    "text",
    [
        f"registries: [{{token: {SECRET}, token_file: /nowhere}}]",
        f"registries: [{{token: {SECRET}é}}]",
        f"registries: [{{token: {SECRET} {SECRET}}}]",
        f"registries: [{{token: {SECRET}}}, {{name: b, token: {SECRET}}}]",
        f"registries: [{{token: [{SECRET}]}}]",
        f"registries: [{{token: {{{SECRET}: 1}}}}]",
        f"registries: [{{token:{SECRET}}}]",
        f"registries: [{{token:{SECRET}: 1, token:{SECRET}: 1}}]",
        f"registries:\n- token: {SECRET}: x",
        f"registries:\n- token: *{SECRET}",
        f"registries:\n- token: !{SECRET} x",
        f"registries:\n- token: !{SECRET}!a x",
        f"registries:\n- token: '{SECRET}\n",
        f"registries:\n- token: {SECRET}\n  - x",
        f"registries:\n- token: !!int {SECRET}",
        f"registries:\n- token: !!binary {SECRET}",
        f"registries:\n- token: &{SECRET} a\n  name: &{SECRET} b\n  b",
        f"mongodb: {{uri: 'postgres://u:{SECRET}@h/'}}",
        f"docker_auth: {{uri: 'postgres://u:{SECRET}@h/'}}",
        f"mongodb: {{uri: 'mongodb://u:{SECRET}@h/', database: ''}}",
        f"server: {{secret_key: {SECRET}, workers: 0}}",
        f"server: {{bind: '0.0.0.0:1', secret_key: {SECRET}}}",
    ],
)
def test_a_secret_never_shows_in_an_error(refusal: Refusal, text: str) -> None:
    assert SECRET not in refusal(text)
