"""English and Chinese: who gets which, that every text has both, and what stays English."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from builders import INDEX, NOW, csrf_token, digest, wire_event
from flask import Flask
from flask.testing import FlaskClient
from outside import texts_outside

from app.migration.advice import ADVICE
from app.rules.clients import CLIENTS
from app.web.languages import day, number, weekdays
from app.web.texts import told

SignIn = Callable[[str], FlaskClient]
Store = Callable[..., None]

APP = Path(__file__).parents[3] / "app"
TEMPLATES = sorted((APP / "templates").rglob("*.html"))
CATALOGUES = sorted((APP / "translations").rglob("*.po"))
CHINESE = {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}


# Who gets which


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-Hans"),
        ("zh-CN,en;q=0.8", "zh-Hans"),
        ("en-GB,zh;q=0.5", "en"),
        ("de,fr;q=0.9", "en"),
        ("de,zh;q=0.3", "zh-Hans"),
        ("zh;q=0,en", "en"),
        ("*", "en"),
        ("", "en"),
        ('"><script>', "en"),
    ],
)
def test_a_page_speaks_what_the_browser_asks_for(
    client: FlaskClient, accepted: str, language: str
) -> None:
    page = client.get("/login", headers={"Accept-Language": accepted})

    assert f'<html lang="{language}"' in page.text
    assert page.headers["Content-Language"] == language
    assert {"Accept-Language", "Cookie"} <= set(page.vary)


def test_a_choice_goes_before_what_the_browser_asks_for(sign_in: SignIn) -> None:
    client = sign_in("alice")
    token = csrf_token(client.get("/search/").text)

    client.post("/preferences", data={"language": "zh-Hans", "csrf_token": token})
    chinese = client.get("/search/", headers={"Accept-Language": "en"}).text
    client.post("/preferences", data={"language": "en", "csrf_token": token})
    english = client.get("/search/", headers=CHINESE).text

    assert '<html lang="zh-Hans"' in chinese
    assert "仓库" in chinese
    assert '<html lang="en"' in english
    assert "Repositories" in english


def test_a_choice_that_there_is_not_is_none(client: FlaskClient) -> None:
    client.set_cookie("language", "xx")
    assert '<html lang="zh-Hans"' in client.get("/login", headers=CHINESE).text


def test_whoever_has_not_signed_in_can_choose_too(client: FlaskClient) -> None:
    assert 'lang="zh-Hans"' in client.get("/login").text


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/records?action=none",
        "/api/v1/openapi.json",
        "/api/v1/nothing",
        "/analysis/user/login/?format=csv",
        "/metrics",
        "/healthz",
    ],
)
def test_what_programs_read_is_english(sign_in: SignIn, store: Store, path: str) -> None:
    store(wire_event("pull", tag="v1"))
    client = sign_in("admin")

    answer = client.get(path, headers=CHINESE)

    assert answer.text == client.get(path).text or path == "/metrics"
    assert not re.search(r"[\u4e00-\u9fff]", answer.text)


def test_an_error_is_told_in_the_language_of_the_page(sign_in: SignIn) -> None:
    client = sign_in("alice")

    page = client.get("/search/tag?repository=team/app&tag=none", headers=CHINESE)

    assert page.status_code == 404
    assert "没有这个标签。" in page.text


def test_a_wrong_value_is_told_in_the_language_of_the_page(sign_in: SignIn) -> None:
    client = sign_in("alice")

    page = client.get("/analysis/user/login/?from=yesterday&registry=" + "x" * 300, headers=CHINESE)

    assert page.status_code == 400
    assert "应为日期或 UTC 时间" in page.text
    assert "300" not in re.sub(r"x{300}", "", page.text)
    assert "characters" not in page.text


# What is said


def test_a_sentence_from_below_keeps_what_varies(app: Flask) -> None:
    with app.test_request_context(headers=CHINESE):
        assert told("There is no such tag.") == "没有这个标签。"
        assert told("30 jobs are open") == "30 个任务未完成"
        assert told("another crawl is wanted: no server listened") == (
            "需要再遍历一次：没有服务器在接收"
        )
        assert told("its debug server does not answer: push") == "它的调试服务器没有响应：push"
        found = "the last verification found 2 broken blob, 1 missing: team/app:v1 and 2 more"
        assert told(found) == "上次校验发现：2 blob 损坏, 1 缺失：team/app:v1 等，另有 2 个"
        assert told("the source does not list the tags of team/app, team/web and 3 more") == (
            "源端不列出这些仓库的标签：team/app, team/web 等，另有 3 个"
        )
        assert told("state cut_over") == "状态：已切换"
        forced = "state frozen, by force: https://old.invalid still takes pushes (why)"
        assert told(forced) == "状态：强制改为已冻结：https://old.invalid still takes pushes (why)"
        assert told(
            "Not ready: the database is brought from schema 1 to 2: 3,000 of about 9,000 documents "
            "are done. Events are taken in meanwhile; nothing is lost."
        ) == (
            "尚未就绪：数据库正从结构版本 1 升级到 2：约 9,000 个文档中已完成 3,000 个。"
            "其间照常接收事件，不会丢失。"
        )
        assert told("something new") == "something new"
        assert told("") == ""
    with app.test_request_context():
        assert told("30 jobs are open") == "30 jobs are open"


def test_what_varies_is_escaped(sign_in: SignIn) -> None:
    page = sign_in("admin").get("/access/?account=<b>&repository=team/app", headers=CHINESE)

    assert "没有账号 &lt;b&gt;" in page.text
    assert "<b>" not in page.text


def test_numbers_and_days_are_written_as_readers_write_them(app: Flask) -> None:
    with app.test_request_context(headers=CHINESE):
        assert number(1234567) == "1,234,567"
        assert number(12.345, "0.0") == "12.3"
        assert day(NOW).endswith("日")
        assert weekdays()[0] == "周一"
    with app.test_request_context():
        assert day(NOW)[:3].isalpha()
        assert weekdays() == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


# That every text has both


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(APP)))
def test_no_text_of_a_template_is_outside_of_the_catalogues(app: Flask, path: Path) -> None:
    assert texts_outside(app.jinja_env, path.read_text()) == []


def test_a_text_outside_is_noticed(app: Flask) -> None:
    source = """
        <p title="A title {{ x }}">A text {{ "and one" if x else _("or") }}</p>
        {% if x %}<b>bold</b>{% endif %}<code>not this</code>{{ m.list("Names") }}
        {% set word = "set" %}{{ _("Known") }}{% trans %}Known too{% endtrans %}
    """
    found = {text for _, text in texts_outside(app.jinja_env, source)}
    assert found == {"A title", "A text", "and one", "bold", "Names"}


def test_no_text_of_a_form_is_outside_of_the_catalogues() -> None:
    found = [
        f"{path.name}:{line}: {text}"
        for path in (APP / "web" / "forms").glob("*.py")
        for line, text in _bare_texts(ast.parse(path.read_text()))
    ]
    assert found == []


def _bare_texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Labels, descriptions, choices and messages that are plain literals."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", "")
        shown = [keyword.value for keyword in node.keywords if keyword.arg == "description"]
        if name.endswith(("Field", "_field", "Error")):
            shown += node.args[:1]
        elif name == "SelectChoice":
            shown += node.args[1:2]
        for value in shown:
            if isinstance(value, ast.JoinedStr | ast.Constant) and name != "InvalidQuery":
                yield node.lineno, ast.unparse(value)


def _extracted() -> set[str]:
    found = set[str]()
    for pattern, method in (("web/**.py", "python"), ("templates/**.html", "jinja2")):
        messages = extract_from_dir(
            APP,
            [(pattern, method)],
            {pattern: {"trimmed": "true"}},
            {"_": None, "gettext": None, "lazy_gettext": None, "ngettext": (1, 2),
             "pgettext": ((1, "c"), 2)},
        )  # fmt: skip
        for _, _, text, _, _ in messages:
            found.add(_first(text))
    return found


def _read(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file)


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parts[-3])
def test_a_catalogue_has_every_text_and_no_other(path: Path) -> None:
    known = {_first(m.id) for m in _read(path) if m.id}
    extracted = _extracted()

    assert extracted - known == set(), "make translations"
    assert known - extracted == set(), "make translations"


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parts[-3])
def test_every_text_is_translated_with_its_holes_and_tags(path: Path) -> None:
    wrong = []
    for message in _read(path):
        originals = [message.id] if isinstance(message.id, str) else list(message.id)
        texts = [message.string] if isinstance(message.string, str) else list(message.string)
        marks = set(re.findall(r"%\(\w+\)s|\{\w+\}|%%|</?\w+", originals[-1]))
        if message.id and any(
            not text or marks != set(re.findall(r"%\(\w+\)s|\{\w+\}|%%|</?\w+", text))
            for text in texts
        ):
            wrong.append(message.id)
    assert wrong == []


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parts[-3])
def test_what_is_shown_is_the_catalogue(path: Path) -> None:
    with path.with_suffix(".mo").open("rb") as file:
        compiled = _texts(read_mo(file))

    assert compiled == _texts(_read(path)), "make translations"


def _texts(catalogue: Catalog) -> set[tuple[str | None, str, str]]:
    return {(m.context, _first(m.id), _first(m.string)) for m in catalogue if m.id}


def _first(forms: str | Sequence[str]) -> str:
    return forms if isinstance(forms, str) else forms[0]


def test_every_advice_is_translated(app: Flask) -> None:
    with app.test_request_context(headers=CHINESE):
        assert [text for text in ADVICE.values() if told(text) == text] == []


# That no English is left on a page

NAMES = re.compile(
    r"Registry Notification(s| Server)|English|User-Agent|docker( login| pull)?|[Bb]lob|Unix|API"
    r"|CSV|NDJSON|UTC|SBOM|ACL|HEAD|JSON|Basic|Bearer|OpenAPI|HTTP|TLS|SHA256|referrers|seq|Label|label"
    r"|sha256:[0-9a-f]*|\b[0-9a-f]{12}\b|/?api/v1/[a-z/-]*|bcrypt|htpasswd|regctl|[Cc]hart"
    r"|problem|RFC|CI|ip|LDAP"
)
# What the test stored, classes of clients, and examples beside fields.
VALUES = {
    *("alice", "admin", "team", "app", "default", "bot", "account", "name", "match", "actions"),
    *("pull", "shop", "web", "nightly", "report", "scanner", "replication", "updater", "Werkzeug"),
    *itertools.chain.from_iterable(re.findall("[a-z]{3,}", client) for client in CLIENTS),
}
PATHS = [
    "/login", "/search/", "/search/user/login/", "/search/user/repo/login/", "/search/all?q=app",
    "/search/all?q=zzz", "/search/repository?repository=team/app",
    "/search/tag?repository=team/app&tag=v1", f"/search/digest?digest={digest('image')}",
    "/analysis/", "/analysis/?days=1", "/analysis/?by=client", "/analysis/user/login/",
    "/analysis/user/login/?action=pull&client=docker", "/analysis/unused?days=1",
    "/analysis/storage", "/analysis/recall", "/analysis/recall?repository=team/app&tag=v1",
    "/analysis/account?name=k8s",
    "/analysis/address?address=10.9.8.7", "/access/", "/access/?account=alice&repository=team/app",
    "/access/sign-ins", "/access/tokens", "/account", "/registries/", "/wiring/",
    "/wiring/rejected", "/wiring/test?since=0", "/migration/", "/nothing",
]  # fmt: skip
HIDDEN = re.compile(
    r"<(code|pre|script|style|svg)\b.*?</\1>"
    r'|<(\w+)[^>]* (?:class="[^"]*(?:name|clip|monospace|digest|user-select)[^"]*"|lang="en")[^>]*>'
    r".*?</\2>",
    re.DOTALL,
)


@pytest.mark.parametrize("path", PATHS)
def test_a_chinese_page_has_no_english_but_names(sign_in: SignIn, store: Store, path: str) -> None:
    store(
        wire_event("push", tag="v1", actor="ci-bot", media_type=INDEX),
        wire_event("pull", tag="v1", at=1, actor="k8s", address="10.9.8.7:1234"),
    )
    page = sign_in("admin").get(path, headers=CHINESE).text

    shown = re.findall(r'(?:title|aria-label|placeholder|data-label)="([^"]*)"', page)
    text = re.sub(r"<[^>]*>", " ", HIDDEN.sub(" ", page.partition("</head>")[2]))
    words = re.findall(r"[A-Za-z]{3,}", NAMES.sub("", " ".join([text, *shown])))
    assert set(words) - VALUES == set()
