"""What gunicorn's master and workers do around the application."""

from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from gunicorn.config import Config

from app.errors import StoreUnavailable
from app.server.hooks import Hooks
from app.server.preparation import prepare
from app.settings import MongoDB, Notifications, Registry, Server, Settings
from app.store import Stores


@pytest.fixture
def hooks(
    settings: Settings, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Hooks]:
    """Hooks that touch neither this process's signals nor its log, and let nothing go on beside."""
    monkeypatch.setattr("signal.signal", Mock())
    monkeypatch.setattr("logging.config.dictConfig", Mock())
    for thread in ("Closer", "Crew", "CatalogueChecker"):
        monkeypatch.setattr(f"app.server.hooks.{thread}", Mock())
    monkeypatch.setattr("app.server.hooks.connect", lambda *_, **__: mock_stores)
    monkeypatch.setattr("app.server.hooks.PREPARE_PAUSE_S", 0.001)
    listening = msgspec.structs.replace(settings, server=Server(bind="127.0.0.1:0"))
    return lambda **changes: Hooks(msgspec.structs.replace(listening, **changes))


def arbiter(*binds: str) -> Mock:
    """gunicorn's master, as a hook sees it."""
    config = Config()
    config.set("bind", list(binds or ["127.0.0.1:0"]))
    return Mock(cfg=config)


def test_a_database_that_answers_after_the_start_is_prepared_then(
    hooks: Any, settings: Settings, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure = Mock(side_effect=[StoreUnavailable("away")] * 3 + [None])
    monkeypatch.setattr(mock_stores, "ensure_indexes", ensure)
    master, crew = hooks(), Mock()
    monkeypatch.setattr("app.server.hooks.Crew", crew)

    master.on_starting(arbiter())
    before = password_file(settings).exists()
    master.post_worker_init(Mock(age=1))
    for thread in threading.enumerate():
        if thread.name == "preparer":
            thread.join(5)

    assert not before
    assert mock_stores.accounts.sign_in("admin", password_file(settings).read_text().strip())
    assert ensure.call_count == 4
    crew.return_value.start.assert_called_once_with()


def test_ctrl_c_while_the_database_starts_ends_both_without_a_word(
    hooks: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    database = Mock()
    database.start.side_effect = KeyboardInterrupt
    monkeypatch.setattr("app.server.hooks.EmbeddedDatabase", lambda *_: database)
    master = hooks(mongodb=MongoDB(uri="embedded"))

    with pytest.raises(SystemExit) as ended:
        master.on_starting(arbiter())

    assert ended.value.code == 130
    assert database.stop.call_count == 1
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed goes to a terminal; to be taken before `capsys`."""
    monkeypatch.setattr("app.server.preparation.sys", Mock(stdout=Mock(isatty=lambda: True)))


def password_file(settings: Settings) -> Path:
    return Path(settings.mongodb.data_dir) / "first_password"


def test_the_first_password_is_printed_to_a_terminal_and_kept_nowhere(
    settings: Settings, mock_stores: Stores, terminal: None, capsys: Any, caplog: Any
) -> None:
    prepare(mock_stores, settings)
    prepare(mock_stores, settings)

    printed = capsys.readouterr().out
    password = printed.split("Password:")[1].split()[0]
    assert printed.count("Password:") == 1
    assert mock_stores.accounts.sign_in("admin", password)
    assert not password_file(settings).exists()
    assert caplog.messages == []


def test_without_a_terminal_the_first_password_is_in_a_private_file_that_the_log_names(
    settings: Settings, mock_stores: Stores, capsys: Any, caplog: Any
) -> None:
    prepare(mock_stores, settings)
    prepare(mock_stores, settings)

    file = password_file(settings)
    password = file.read_text().strip()
    assert mock_stores.accounts.sign_in("admin", password)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    [line] = caplog.messages
    assert str(file) in line
    assert "first account: admin" in line
    assert password not in line
    assert capsys.readouterr() == ("", "")


def test_a_password_file_of_others_is_never_written_to(
    settings: Settings, mock_stores: Stores, tmp_path: Path
) -> None:
    file, other = password_file(settings), tmp_path / "other"
    file.parent.mkdir()
    other.write_text("")
    file.symlink_to(other)

    prepare(mock_stores, settings)

    assert (other.read_text(), file.is_symlink()) == ("", False)
    assert mock_stores.accounts.sign_in("admin", file.read_text().strip())


def test_where_no_password_can_be_kept_no_account_is_made(
    settings: Settings, mock_stores: Stores, caplog: Any
) -> None:
    Path(settings.mongodb.data_dir).write_text("a file")

    prepare(mock_stores, settings)

    assert not mock_stores.accounts.has_any()
    [line] = caplog.messages
    assert line.endswith("rns accounts add admin")


def test_of_processes_that_prepare_at_once_one_makes_an_account(
    settings: Settings, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    add = mock_stores.accounts.add

    def add_while_another_one_prepares(*arguments: Any) -> bool:
        monkeypatch.setattr(mock_stores.accounts, "add", add)
        prepare(mock_stores, settings)
        return add(*arguments)

    monkeypatch.setattr(mock_stores.accounts, "add", add_while_another_one_prepares)
    prepare(mock_stores, settings)
    prepare(mock_stores, settings)

    assert len(caplog.messages) == 1
    assert mock_stores.accounts.sign_in("admin", password_file(settings).read_text().strip())


@pytest.mark.parametrize("bind", ["0.0.0.0:0", ":0", "[::]:0", "example.com:0", "fd://3"])
def test_gunicorns_own_options_let_nobody_in_without_a_token(
    hooks: Any, capsys: Any, bind: str
) -> None:
    open_to_all = hooks(registries=[Registry()])
    with pytest.raises(SystemExit):
        open_to_all.on_starting(arbiter("127.0.0.1:0", bind))
    assert capsys.readouterr().err.startswith("rns: registries[0].token: is needed to listen on ")

    hooks().on_starting(arbiter(bind))
    hooks(registries=[Registry()], notifications=Notifications(allow_anonymous=True)).on_starting(
        arbiter(bind)
    )


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "[::1]:0", "unix:/run/rns.sock"])
def test_loopback_and_unix_sockets_need_no_token(hooks: Any, bind: str) -> None:
    hooks(registries=[Registry()]).on_starting(arbiter(bind))


def test_a_port_that_gunicorns_own_options_replace_may_be_taken(hooks: Any, capsys: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        server = Server(bind=bind)
        hooks(server=server).on_starting(arbiter("unix:/run/rns.sock"))

        with pytest.raises(SystemExit):
            hooks(server=server).on_starting(arbiter("unix:/run/rns.sock", bind))

    assert capsys.readouterr().err.startswith(f"rns: server.bind: cannot listen on {bind}")


def test_a_unix_socket_is_told_as_one_and_as_no_address_of_pages(hooks: Any, caplog: Any) -> None:
    caplog.set_level("INFO", "app")

    hooks().when_ready(Mock(LISTENERS=["unix:/run/rns.sock"]))

    assert caplog.messages == ["listening on unix:/run/rns.sock, for a proxy on this machine"]


def test_a_secret_key_is_made_before_the_workers_start(hooks: Any, settings: Settings) -> None:
    hooks().on_starting(arbiter())

    file = Path(settings.mongodb.data_dir) / "secret_key"
    assert len(file.read_text()) > 40
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_secret_key_is_told_in_one_line_before_the_workers_start(
    hooks: Any, settings: Settings, capsys: Any, content: str
) -> None:
    file = Path(settings.mongodb.data_dir) / "secret_key"
    file.parent.mkdir()
    file.write_text(content)

    with pytest.raises(SystemExit):
        hooks().on_starting(arbiter())

    told = capsys.readouterr().err
    assert told == f"rns: server.secret_key: {file} is empty; remove it to have one made anew\n"


@pytest.mark.parametrize(
    ("listener", "told"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://0.0.0.0:8000", "http://rns-1:8000"),
        ("https://[::]:8443", "https://rns-1:8443"),
    ],
)
def test_the_addresses_that_are_told_at_the_start_lead_to_this_host(
    hooks: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch, listener: str, told: str
) -> None:
    monkeypatch.setattr("app.server.hooks.socket.gethostname", lambda: "rns-1")
    caplog.set_level("INFO", "app")

    hooks().when_ready(Mock(LISTENERS=[listener]))

    assert f"the pages are at {told}/, registries send to {told}/events" in caplog.text
