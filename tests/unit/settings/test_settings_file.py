"""The configuration from its file: defaults, and what a wrong one is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.errors import ConfigError
from app.settings import (
    TLS,
    Access,
    DockerAuth,
    Limits,
    Migration,
    MigrationOptions,
    MongoDB,
    Notifications,
    Registry,
    Renaming,
    RepositoryFilter,
    Server,
    Settings,
    Source,
    TagFilter,
    Target,
    load_settings,
)

SHIPPED = Path(__file__).parents[3] / "config.yml"
SECRET = "s3cret-Zq8-s3cret-Zq8"

Load = Callable[..., Settings]
Refusal = Callable[..., str]


# Where the values come from


def test_the_shipped_file_says_the_defaults() -> None:
    assert load_settings(SHIPPED, {}) == Settings()


def test_a_byte_order_mark_is_no_part_of_the_file(load: Load) -> None:
    assert load("\ufeffserver: {workers: 3}").server.workers == 3
    assert load("\ufeff---\nserver: {workers: 3}").server.workers == 3
    assert load("\ufeff") == Settings()


def test_the_shipped_file_names_every_key_but_those_of_secret_files() -> None:
    document = yaml.safe_load(SHIPPED.read_text("utf-8"))
    missing = {
        f"{name}.{key}"
        for name, section in msgspec.to_builtins(Settings()).items()
        for part, said in (
            [(section, document[name])]
            if isinstance(section, dict)
            else zip(section, document[name], strict=True)
        )
        for key in part.keys() - said.keys()
    }

    # A secret is shown either as itself or as its file.
    assert missing == {
        "server.secret_key_file",
        "server.metrics_token_file",
        "mongodb.uri_file",
        "docker_auth.uri_file",
        "registries.token_file",
        "registries.tokens_file",
        "registries.password",
    }


def test_an_empty_file_means_the_defaults(load: Load) -> None:
    assert load("# nothing but a comment\n") == Settings()


def test_a_default_list_is_not_shared() -> None:
    assert Settings().registries is not Settings().registries


def test_every_key_of_the_file_is_read(load: Load, tmp_path: Path) -> None:
    certificate, key, ca = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    for file in (certificate, key, ca):
        file.write_text("PEM")

    loaded = load(f"""
server:
  bind: 0.0.0.0:443
  workers: 8
  threads: 16
  tls: {{certificate: {certificate}, private_key: {key}}}
  trusted_proxies: 1
  secret_key: {SECRET}
mongodb: {{uri: "mongodb://db/?replicaSet=rs", database: events, data_dir: /srv/rns}}
docker_auth: {{uri: "mongodb+srv://auth", database: auth, accounts: a, acl: b, service: hub}}
access:
  {{own_namespace: false, administrators: [root, ops], anonymous: true, records: without_addresses}}
registries:
  - {{name: eu.1, hosts: [eu.example:5000], token: one, url: "https://eu.example",
     username: mover, password: {SECRET}, ca_file: {ca}, insecure: true}}
  - {{name: us, token: two}}
notifications:
  {{allow_anonymous: true, max_body_bytes: 1024, max_inbox_bytes: 2097152, retention_days: 30}}
migrations:
  - {{name: dc2, source: {{url: "https://old", registry_id: us, debug_url: "http://old:5001"}},
     target: {{url: "https://new", username: mover, password_file: /nowhere,
              limits: {{images: 2, mb_per_s: 0.5}}}},
     repos: {{include: ["team/**"]}}, tags: {{exclude: ["*-dev"], keep_latest: 5}},
     map: [{{from: team/, to: new/}}], options: {{deletes: off, existing: fail}}}}
""")

    assert loaded == Settings(
        server=Server("0.0.0.0:443", 8, 16, TLS(str(certificate), str(key)), 1, SECRET),
        mongodb=MongoDB("mongodb://db/?replicaSet=rs", "", "events", "/srv/rns"),
        docker_auth=DockerAuth("mongodb+srv://auth", "", "auth", "a", "b", "hub"),
        access=Access(False, ["root", "ops"], True, "without_addresses"),
        registries=[
            Registry(
                name="eu.1",
                hosts=["eu.example:5000"],
                token="one",
                url="https://eu.example",
                username="mover",
                password=SECRET,
                ca_file=str(ca),
                insecure=True,
            ),
            Registry(name="us", token="two"),
        ],
        notifications=Notifications(True, 1024, 2 * 1024 * 1024, 30),
        migrations=[
            Migration(
                name="dc2",
                source=Source(url="https://old", registry_id="us", debug_url="http://old:5001"),
                target=Target(
                    url="https://new",
                    username="mover",
                    password_file="/nowhere",
                    limits=Limits(images=2, mb_per_s=0.5),
                ),
                repos=RepositoryFilter(include=["team/**"]),
                tags=TagFilter(exclude=["*-dev"], keep_latest=5),
                map=[Renaming(from_="team/", to="new/")],
                options=MigrationOptions(deletes=False, existing="fail"),
            )
        ],
    )


@pytest.mark.parametrize(
    "text",
    [
        "server:\n",
        "server:\n  tls:\n",
        "server: {workers: }\n",
        "server: ~\nmongodb: null\n",
        "registries:\n",
        "registries: [{name: , hosts: , token: }]\n",
        "access: {administrators: }\n",
        "migrations:\n",
        "---\n",
    ],
)
def test_a_key_with_nothing_after_it_keeps_its_default(load: Load, text: str) -> None:
    assert load(text) == Settings()


def test_an_anchor_and_a_merge_are_understood(load: Load) -> None:
    loaded = load("server:\n  <<: {workers: 3, threads: 3}\n  threads: 5\n")

    assert loaded.server == Server(workers=3, threads=5)


def test_without_a_name_the_file_of_the_working_directory_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yml").write_text("server: {workers: 7}")
    monkeypatch.chdir(tmp_path)

    assert load_settings(environ={}).server.workers == 7


def test_without_any_file_the_defaults_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert load_settings(environ={"PATH": "/bin", "RNS_CONFIG": ""}) == Settings()


def test_rns_config_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yml").write_text("server: {workers: 7}")
    (tmp_path / "other.yml").write_text("server: {workers: 9}")
    monkeypatch.chdir(tmp_path)

    assert load_settings(environ={"RNS_CONFIG": "other.yml"}).server.workers == 9


def test_a_given_path_goes_before_rns_config(tmp_path: Path) -> None:
    (tmp_path / "given.yml").write_text("server: {workers: 7}")
    environ = {"RNS_CONFIG": str(tmp_path / "nowhere.yml")}

    assert load_settings(tmp_path / "given.yml", environ).server.workers == 7


def test_a_file_asked_for_by_name_must_exist(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yml"

    with pytest.raises(ConfigError, match=r"missing\.yml: cannot be read: .*No such file"):
        load_settings(environ={"RNS_CONFIG": str(missing)})


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: .*directory"):
        load_settings(tmp_path, {})


def test_a_file_that_is_not_utf_8_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_bytes(b"server: \xff")

    with pytest.raises(ConfigError, match="cannot be read: 'utf-8'"):
        load_settings(file, {})


# What is refused, and in which words


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sever: {}", "sever"),
        ("server: {bnd: 1}", "server.bnd"),
        ("server: {tls: {cert: a}}", "server.tls.cert"),
        ("mongodb: {url: a}", "mongodb.url"),
        ("docker_auth: {users: a}", "docker_auth.users"),
        ("access: {admins: []}", "access.admins"),
        ("registries: [{tokn: a}]", "registries[0].tokn"),
        ("registries: [{}, {name: b, hst: a}]", "registries[1].hst"),
        ("notifications: {anonymous: true}", "notifications.anonymous"),
        ("token_file: /nowhere/token", "token_file"),
        ("Server: {}", "Server"),
        ("server: {workers: 2, 'workers ': 3}", "server.workers…"),
        ('"\\0": 1', "…"),
        ('"": 1', "config"),
        ("server: {worker: }", "server.worker"),
        ("registries: [{token:abc}]", "registries[0].token…"),
    ],
)
def test_an_unknown_key_is_refused_with_its_path(refusal: Refusal, text: str, path: str) -> None:
    # A secret's file is opened before the keys are checked.
    text = text.replace("/nowhere/token", str(SHIPPED))

    assert refusal(text) == f"{path}: unknown key"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server: {}\nserver: {}", "server: given twice (line 2)"),
        (
            "server:\n  workers: 1\n  threads: 1\n  workers: 2",
            "server.workers: given twice (line 4)",
        ),
        (
            "server: {tls: {private_key: a, private_key: a}}",
            "server.tls.private_key: given twice (line 1)",
        ),
        (
            "registries:\n- {name: a}\n- {name: b,\n   name: c}",
            "registries[1].name: given twice (line 4)",
        ),
        ("migrations: [{a: 1, a: 1}]", "migrations[0].a: given twice (line 1)"),
    ],
    ids=["section", "key", "deep", "list entry", "migration"],
)
def test_a_key_given_twice_is_refused(refusal: Refusal, text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server: 3", "server: expected a section, got a whole number"),
        ("server: [bind, workers]", "server: expected a section, got a list"),
        ("mongodb: embedded", "mongodb: expected a section, got text"),
        ("server: {tls: true}", "server.tls: expected a section, got true or false"),
        ("server: {workers: '4'}", "server.workers: expected a whole number, got text"),
        ("server: {workers: 2.5}", "server.workers: expected a whole number, got a number"),
        ("server: {workers: true}", "server.workers: expected a whole number, got true or false"),
        ("server: {workers: .nan}", "server.workers: expected a whole number, got a number"),
        ("server: {workers: 0}", "server.workers: expected a whole number >= 1"),
        ("server: {workers: 257}", "server.workers: expected a whole number <= 256"),
        ("server: {threads: -1}", "server.threads: expected a whole number >= 1"),
        (f"server: {{threads: {10**30}}}", "server.threads: expected a whole number <= 256"),
        ("server: {trusted_proxies: -1}", "server.trusted_proxies: expected a whole number >= 0"),
        ("server: {trusted_proxies: 11}", "server.trusted_proxies: expected a whole number <= 10"),
        (
            "server: {bind: 8000}",
            "server.bind: expected text, got a whole number; put quotes around it",
        ),
        (
            "server: {bind: 12:30}",
            "server.bind: expected text, got a whole number; put quotes around it",
        ),
        (
            "server: {bind: 2026-01-01}",
            "server.bind: expected text, got a date; put quotes around it",
        ),
        ("server: {bind: [a]}", "server.bind: expected text, got a list"),
        ("mongodb: {database: ''}", "mongodb.database: expected text of length >= 1"),
        (f"mongodb: {{database: {'d' * 64}}}", "mongodb.database: expected text of length <= 63"),
        ("mongodb: {data_dir: ''}", "mongodb.data_dir: expected text of length >= 1"),
        ("docker_auth: {acl: ''}", "docker_auth.acl: expected text of length >= 1"),
        (
            "access: {own_namespace: 'yes'}",
            "access.own_namespace: expected true or false, got text",
        ),
        (
            "access: {own_namespace: 1}",
            "access.own_namespace: expected true or false, got a whole number",
        ),
        ("access: {anonymous: 1}", "access.anonymous: expected true or false, got a whole number"),
        (
            "access: {records: mine}",
            "access.records: invalid enum value 'mine'; expected all, without_addresses, own",
        ),
        (
            "migrations: [{name: a, options: {existing: no way}}]",
            "migrations[0].options.existing: invalid enum value 'no way'; expected overwrite, skip,"
            " backup, fail",
        ),
        (
            "migrations: [{name: a, options: {deletes: tag}}]",
            "migrations[0].options.deletes: invalid enum value 'tag'; expected off, tags,"
            " tags_and_digests",
        ),
        ("access: {administrators: admin}", "access.administrators: expected a list, got text"),
        (
            "access: {administrators: [a, 7]}",
            "access.administrators[1]: expected text, got a whole number; put quotes around it",
        ),
        ("registries: {name: a}", "registries: expected a list, got a section"),
        ("registries: [default]", "registries[0]: expected a section, got text"),
        ("registries: [{name: a}, null]", "registries[1]: expected a section, got nothing"),
        ("registries: [{hosts: a.example}]", "registries[0].hosts: expected a list, got text"),
        ("registries: []", "registries: at least one registry is needed"),
        (
            "registries: [{token: yes}]",
            "registries[0].token: expected text, got true or false; put quotes around it",
        ),
        (
            "notifications: {max_body_bytes: 1023}",
            "notifications.max_body_bytes: expected a whole number >= 1024",
        ),
        (
            "notifications: {max_body_bytes: 268435457}",
            "notifications.max_body_bytes: expected a whole number <= 268435456",
        ),
        (
            "notifications: {max_inbox_bytes: 1048575}",
            "notifications.max_inbox_bytes: expected a whole number >= 1048576",
        ),
        (
            "notifications: {retention_days: 36501}",
            "notifications.retention_days: expected a whole number <= 36500",
        ),
        ("migrations: {a: 1}", "migrations: expected a list, got a section"),
        ("migrations: [a]", "migrations[0]: expected a section, got text"),
        ("1: 2", "config: a key that is not text"),
        ("server: {1: 2}", "server: a key that is not text"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_plain_words(
    refusal: Refusal, text: str, message: str
) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- server\n", "expected sections, as in `server:`, and found none"),
        ("server", "expected sections, as in `server:`, and found none"),
        ("3", "expected sections, as in `server:`, and found none"),
        ("server: {bind: x", "not valid YAML: line 1: expected ',' or '}', but got '<stream end>'"),
        ("server:\n  bind: a: b", "not valid YAML: line 2: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", "not valid YAML: line 2: but found another document"),
        ("? [a]\n: b\n", "not valid YAML: line 1: found unhashable key"),
        ("server: {bind: 2026-13-45}", "not valid YAML: there is no such date or number"),
        ("server: &a {tls: *a}", "nested too deeply, or contains itself"),
        ("x: " + "[" * 1100, "nested too deeply, or contains itself"),
        (
            "x: !!python/object/apply:os.system [a]",
            "not valid YAML: line 1: could not determine a constructor for the tag; "
            "text that begins with * or ! needs quotes",
        ),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_a_broken_file_is_refused_with_its_name(refusal: Refusal, text: str, message: str) -> None:
    assert refusal(text) == f"config.yml: {message}"


def test_a_file_with_control_characters_is_refused(refusal: Refusal) -> None:
    assert refusal("server: \x01").startswith("config.yml: not valid YAML: ")


# Anything at all

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
_keys = st.sampled_from(
    ["server", "tls", "bind", "registries", "token", "token_file", "hosts", "migrations", "uri"]
)


def load_or_refuse(file: Path, text: str, **environ: str) -> Settings | ConfigError:
    file.write_text(text, "utf-8", "surrogatepass")
    try:
        return load_settings(file, environ)
    except ConfigError as error:
        return error


@hypothesis_settings(max_examples=50, deadline=None)
@given(document=st.dictionaries(_keys, st.dictionaries(_keys, _values) | _values))
def test_any_document_loads_or_is_refused(
    document: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yml"

    outcome = load_or_refuse(file, yaml.safe_dump(document, allow_unicode=True))

    assert isinstance(outcome, Settings) or ": " in str(outcome)


@hypothesis_settings(max_examples=200, deadline=None)
@given(text=st.text())
@example(text="&a [*a]")
@example(text="!!timestamp x")
@example(text="server: !!bool x")
@example(text="? {a: b}\n")
@example(text="<<: 3")
def test_any_text_loads_or_is_refused(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yml"

    from_file = load_or_refuse(file, text)
    from_variable = load_or_refuse(file, "", RNS_SERVER__WORKERS=text)

    for outcome in (from_file, from_variable):
        assert isinstance(outcome, Settings) or ": " in str(outcome)
