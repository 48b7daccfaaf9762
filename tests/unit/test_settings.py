"""The configuration: defaults, file, environment and secrets, and what a wrong one is told."""

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
    parse_bind,
    parse_duration,
)

SHIPPED = Path(__file__).parents[2] / "config.yml"
SECRET = "s3cret-Zq8"

Load = Callable[..., Settings]
Refusal = Callable[..., str]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load this text as the file, with these variables and no others."""

    def load(text: str = "", **environ: str) -> Settings:
        file = tmp_path / "config.yml"
        file.write_text(text, "utf-8")
        return load_settings(file, environ)

    return load


@pytest.fixture
def refusal(load: Load, tmp_path: Path) -> Refusal:
    """What loading is refused with, without the directory of the file."""

    def refusal(text: str = "", **environ: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text, **environ)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refusal


# Where the values come from


def test_the_shipped_file_says_the_defaults() -> None:
    assert load_settings(SHIPPED, {}) == Settings()


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
access: {{own_namespace: false, administrators: [root, ops]}}
registries:
  - {{name: eu.1, hosts: [eu.example:5000], token: one, url: "https://eu.example",
     username: mover, password: {SECRET}, ca_file: {ca}, insecure: true}}
  - {{name: us, token: two}}
notifications: {{allow_anonymous: true, max_body_bytes: 1024, retention_days: 30}}
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
        access=Access(False, ["root", "ops"]),
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
        notifications=Notifications(True, 1024, 30),
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


# The environment


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("RNS_SERVER__WORKERS", "3", Settings(server=Server(workers=3))),
        ("RNS_SERVER__BIND", "[::1]:80", Settings(server=Server(bind="[::1]:80"))),
        ("RNS_SERVER__BIND", "localhost:80", Settings(server=Server(bind="localhost:80"))),
        ("RNS_SERVER__TLS__CERTIFICATE", "", Settings()),
        ("RNS_SERVER__SECRET_KEY", "1e5", Settings(server=Server(secret_key="1e5"))),
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


# Secrets


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
    ("text", "message"),
    [
        (
            "name: Dc2",
            "migrations[0].name: expected up to 63 of a-z, 0-9, dot, _ and -, "
            "beginning with a letter or digit",
        ),
        (
            "source: {url: a, registry_id: b}",
            "migrations[0].source.registry_id: no registry in registries has this name",
        ),
        ("target: {url: https://old/}", "migrations[0].target.url: is the source's"),
        (
            "options: {deletes: on}",
            "migrations[0].options.deletes: expected off, tags or tags_and_digests",
        ),
        (
            "options: {existing: no}",
            "migrations[0].options.existing: expected text, got true or false; "
            "put quotes around it",
        ),
        ("tags: {latest: 1}", "migrations[0].tags.latest: unknown key"),
        ("target: {}", "migrations[0].target.url: is needed"),
        ("target: {url: HTTPS://OLD:443}", "migrations[0].target.url: is the source's"),
        (
            "target: {url: https://new, registry_id: new}",
            "migrations[0].target.registry_id: no registry in registries has this name",
        ),
        (
            "options: {platforms: [linux/amd64]}",
            "migrations[0].options.platforms: expected all; a part of the platforms would change "
            "the digest of every index, and nothing could be compared any more",
        ),
        (
            "options: {verify_every: 1 day}",
            "migrations[0].options.verify_every: expected a time as 90m, 24h or 30d",
        ),
        (
            "options: {untagged: {pulled_within: 30}}",
            "migrations[0].options.untagged.pulled_within: expected text, got a whole number; "
            "put quotes around it",
        ),
        (
            "options: {untagged: {pulled_within: '30'}}",
            "migrations[0].options.untagged.pulled_within: expected a time as 90m, 24h or 30d",
        ),
        (
            "source: {url: https://old, username: u, authfile: f}",
            "migrations[0].source.authfile: username is given too; keep one of the two",
        ),
        (
            "source: {url: https://old, password: p, password_env: P}",
            "migrations[0].source.password_env: password is given too; keep one of the two",
        ),
        (
            "reverse_of: other",
            "migrations[0].source: comes from other; leave it out",
        ),
    ],
    ids=[
        *("name", "registry", "same", "deletes", "existing", "unknown", "no url", "same place"),
        *("target registry", "platforms", "verify", "pulled", "pulled text", "authfile"),
        *("two passwords", "reverse"),
    ],
)
def test_a_migration_that_cannot_be_is_refused(refusal: Refusal, text: str, message: str) -> None:
    keys = {
        "name": "dc2",
        "source": {"url": "https://old"},
        "target": {"url": "https://new"},
        **yaml.safe_load(text),
    }

    assert refusal(yaml.safe_dump({"migrations": [keys]})) == message


WAY = {
    "name": "dc2",
    "source": {"url": "https://old"},
    "target": {"url": "https://new", "registry_id": "new"},
}
BACK = {"name": "back", "reverse_of": "dc2"}


def migrations_text(*migrations: dict[str, object]) -> str:
    registries = [{"name": "default"}, {"name": "new"}]
    return yaml.safe_dump({"migrations": migrations, "registries": registries})


def test_a_way_back_has_a_name_and_options_only(load: Load) -> None:
    way_back = load(migrations_text(WAY, BACK | {"options": {"deletes": "tags"}})).migrations[1]

    assert (way_back.reverse_of, way_back.options.deletes) == ("dc2", "tags")


@pytest.mark.parametrize(
    ("migrations", "message"),
    [
        ([WAY, BACK | {"tags": {"keep_latest": 1}}], "migrations[1].tags: comes from dc2; leave"),
        ([BACK], "migrations[0].reverse_of: expected the name of a migration"),
        ([WAY, BACK, {"name": "b", "reverse_of": "back"}], "migrations[2].reverse_of: expected"),
        ([WAY, BACK, BACK | {"name": "b"}], "migrations[1].reverse_of: dc2 has another way back"),
        (
            [WAY | {"target": {"url": "https://new"}}, BACK],
            "migrations[0].target.registry_id: is needed for back",
        ),
        (
            [WAY, {"name": "b", "source": WAY["target"] | {}, "target": WAY["source"]}],
            "migrations[0].target.url: leads back to its source",
        ),
        (
            [
                {"name": name, "source": {"url": f"https://{a}"}, "target": {"url": f"https://{b}"}}
                for name, a, b in (("x", "a", "b"), ("y", "b", "c"), ("z", "c", "b"))
            ],
            "migrations[1].target.url: leads back to its source",
        ),
    ],
    ids=["tags", "none", "of a way back", "two", "no registry", "circle of two", "behind another"],
)
def test_a_way_back_that_cannot_be_is_refused(
    refusal: Refusal, migrations: list[dict[str, object]], message: str
) -> None:
    assert refusal(migrations_text(*migrations)).startswith(message)


@pytest.mark.parametrize("text", ["0", "90s", "15m", "24h", "30d"])
def test_a_time_is_a_number_and_a_unit(text: str) -> None:
    seconds = {"0": 0, "90s": 90, "15m": 900, "24h": 86_400, "30d": 2_592_000}

    assert parse_duration(text).total_seconds() == seconds[text]


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1.5h", "1 h", "999999d", "1w"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^.*$"):
        parse_duration(text)


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


# What fits together


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
