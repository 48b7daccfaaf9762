"""The programs under test as a user runs them: `rns serve` and a CNCF registry."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import requests
import yaml
from click.testing import CliRunner
from pymongo import MongoClient

from app.cli import cli
from app.embedded import recorded_uri

CHECKOUT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
TOKEN = "token-of-the-registry"
APPENDING = (os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
TOOLS = f"{Path.home() / '.cache/rns-tests/bin'}:{os.environ.get('PATH', os.defpath)}"
READY_S = 90.0  # others use the machine, too
STOP_S = 40.0
WORKED_IN_S = 15.0
PASSWORDS = {name: f"password-of-{name}" for name in ("admin", "ci-bot", "alice", "bob", "mallory")}

LOGS: dict[str, Path] = {}  # of every program started, for the report of a failed test


def need_program(name: str) -> str:
    """The path of a program; skips the test without it, but fails where CI=true."""
    path = shutil.which(name, path=TOOLS)
    if path is None:
        reason = f"the program {name} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def eventually(check: Callable[[], Any], within: float, what: str, every: float = 0.05) -> Any:
    """The first true result of `check`; fails when there is none within that many seconds."""
    deadline = time.monotonic() + within
    while True:
        result = check()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        time.sleep(every)


def answers(url: str, *statuses: int) -> bool:
    """Whether a GET is answered with one of these statuses."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(url, timeout=3).status_code in statuses
    except requests.RequestException:
        return False


class Program:
    """A child process in its own process group, its output in a file, also by way of a terminal."""

    def __init__(
        self,
        name: str,
        command: list[str],
        directory: Path,
        environment: Mapping[str, str],
        on_terminal: bool = False,
    ) -> None:
        self.log_file = directory / f"{name}.log"
        LOGS[str(self.log_file)] = self.log_file
        output = self._open_terminal() if on_terminal else os.open(self.log_file, *APPENDING)
        self._process = subprocess.Popen(
            command,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        os.close(output)
        self.pid = self._process.pid

    def _open_terminal(self) -> int:
        """A terminal to write to; what it shows goes to the log until nobody writes any more."""
        shown, written = os.openpty()

        def copy() -> None:
            with self.log_file.open("ab", buffering=0) as log, suppress(OSError):
                while text := os.read(shown, 4096):
                    log.write(text)
            os.close(shown)

        threading.Thread(target=copy, daemon=True).start()
        return written

    @property
    def log(self) -> str:
        """Everything it printed, in earlier runs too."""
        return self.log_file.read_text("utf-8", "replace")

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def terminate(self) -> int:
        """SIGTERM, and SIGKILL when that does not end it; returns the exit status."""
        return self.end_by(signal.SIGTERM)

    def end_by(self, number: signal.Signals, whole_group: bool = False) -> int:
        """Send a signal, wait for the end of the process and return its exit status."""
        if self.is_alive():
            (os.killpg if whole_group else os.kill)(self.pid, number)
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill_group()
            raise AssertionError(f"still alive {STOP_S:g} s after {number.name}") from None

    def freeze(self) -> None:
        """SIGSTOP, and return when all of its threads stand still."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def kill_group(self) -> None:
        """SIGKILL to it and to all children that did not leave its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(STOP_S)


class Server:
    """`rns serve` with its own configuration and data in one directory.

    `code` is where the package lies.
    """

    def __init__(
        self, directory: Path, config: Mapping[str, Any] | None = None, code: Path = CHECKOUT
    ) -> None:
        self._code = code
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.data_dir = directory / "data"
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.config_file = directory / "config.yml"
        document = {
            "server": {"bind": f"{HOST}:{self.port}", "workers": 2, "threads": 4},
            "mongodb": {"uri": "embedded", "data_dir": str(self.data_dir)},
            "registries": [{"name": "default", "token": TOKEN}],
        }
        for section, values in (config or {}).items():
            document[section] = {**document.get(section, {}), **values}  # type: ignore[dict-item]
        self.config_file.write_text(yaml.safe_dump(document))
        self._program: Program | None = None

    @property
    def environment(self) -> dict[str, str]:
        """That of the tests, with this server's configuration and no other."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RNS_")}
        return {**kept, "RNS_CONFIG": str(self.config_file), "PYTHONPATH": str(self._code)}

    @property
    def program(self) -> Program:
        assert self._program is not None, "never started"
        return self._program

    def launch_worker(self, *options: str) -> Program:
        """Run `rns migrate worker`; the caller ends it."""
        command = [sys.executable, "-m", "app", "migrate", "worker", *options]
        return Program("rns-migrate-worker", command, self.directory, self.environment)

    def configure(self, **sections: Any) -> None:
        """Change sections of the configuration; before the start."""
        document = yaml.safe_load(self.config_file.read_text())
        self.config_file.write_text(yaml.safe_dump({**document, **sections}))

    def launch(self, on_terminal: bool = False) -> Program:
        """Run `rns serve` without waiting for it."""
        command = [sys.executable, "-m", "app", "serve"]
        self._program = Program(
            "rns-serve", command, self.directory, self.environment, on_terminal=on_terminal
        )
        return self._program

    def start(self) -> None:
        """Run `rns serve` and return when it is ready."""
        program = self.launch()
        self.wait_until_ready(lambda: program.is_alive())

    def make_database(self) -> None:
        """Run it once: no command makes a database but `rns serve`."""
        self.start()
        self.stop()

    def wait_until_ready(self, may_wait: Callable[[], bool] = lambda: True) -> None:
        def is_ready() -> bool:
            assert may_wait(), f"rns serve ended:\n{self.program.log}"
            return answers(f"{self.url}/readyz", 200)

        eventually(is_ready, READY_S, f"{self.url}/readyz answers 200")

    def wait_until_worked_in(self) -> None:
        """Return when no event that was accepted waits to be worked in any more."""
        database = yaml.safe_load(self.config_file.read_text())["mongodb"]
        uri = database["uri"] if database["uri"] != "embedded" else recorded_uri(self.data_dir)
        with MongoClient[Any](uri) as client:
            inbox = client[database.get("database", "registry")]["inbox"]
            eventually(lambda: inbox.find_one() is None, WORKED_IN_S, "the inbox is empty")

    def worker_pids(self) -> list[int]:
        """The processes of the server that answer requests."""
        children = Path(f"/proc/{self.program.pid}/task/{self.program.pid}/children")
        pids = {int(pid) for pid in children.read_text().split()}
        return sorted(pids - set(database_pids(self.data_dir)))

    def restart_until_ready(self) -> None:
        """Start it as a supervisor does: again until it stays, since a killed one still dies."""
        for _ in range(10):
            program = self.launch()
            while program.is_alive():
                if answers(f"{self.url}/readyz", 200) and program.is_alive():
                    return
                time.sleep(0.1)
        raise AssertionError(f"does not start again:\n{self.program.log}")

    def stop(self) -> int:
        """SIGTERM; returns the exit status once it is gone."""
        return self.program.terminate()

    def clean_up(self) -> None:
        """End everything at once; what it stored is thrown away."""
        if self._program is not None:
            pids = database_pids(self.data_dir)
            self._program.kill_group()
            for pid in {*pids, *database_pids(self.data_dir)}:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def rns(self, *arguments: str, given: str = "", status: int = 0) -> str:
        """Run an `rns` command as a user does and return what it printed."""
        finished = self.run_rns(*arguments, given=given)
        assert finished.returncode == status, f"rns {arguments}: {finished.stderr}"
        return finished.stdout

    def ask(self, *arguments: str, given: str = "") -> str:
        """What `rns` prints, in this process: starting one costs a second.

        For set-up, and for what is asked again and again.
        """
        clean = {key: None for key in os.environ if key.startswith("RNS_")}
        command = ["--config", str(self.config_file), *arguments]
        return CliRunner().invoke(cli, command, given, env=clean, catch_exceptions=False).stdout

    def run_rns(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=self.directory,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def add_account(self, name: str) -> None:
        self.ask("accounts", "add", name, "--password-stdin", given=f"{PASSWORDS[name]}\n")

    def add_account_of_administrator(self) -> None:
        """Give `admin` the password of these tests."""
        given = f"{PASSWORDS['admin']}\n"
        self.rns("accounts", "passwd", "admin", "--password-stdin", given=given)

    def add_acl_entry(self, seq: int, account: str, name: str) -> None:
        """Let an account pull the repositories that match `name`."""
        match = ["--account", account, "--name", name]
        self.ask("acl", "add", "--seq", str(seq), *match, "--actions", "pull")


def database_pids(data_dir: Path) -> list[int]:
    """The processes of the embedded database on a data directory."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = file.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue  # it ended meanwhile
        is_database = any("secantusd" in argument for argument in arguments)
        if is_database and str(data_dir / "embedded") in arguments:
            found.append(int(file.parent.name))
    return found


class Relay:
    """Stands between a registry and a server, as a bad network does.

    Every twentieth event is passed on and then answered 503. While `refuses` is true nothing is
    passed on.
    """

    def __init__(self, server: Server) -> None:
        self.refuses = False
        self.passed = self.denied = 0
        self._server = server
        self._session = requests.Session()
        self._session.trust_env = False
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer((HOST, 0), self._make_handler())
        self._http.daemon_threads = True
        self.url = f"http://{HOST}:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,))
        self._thread.start()

    def clean_up(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._session.close()

    def _pass_on(self, headers: Mapping[str, str], body: bytes) -> int:
        if self.refuses:
            return 503
        kept = {name: headers[name] for name in ("Authorization", "Content-Type")}
        with self._lock:
            try:
                url = f"{self._server.url}/events"
                status = self._session.post(url, data=body, headers=kept, timeout=10).status_code
            except requests.RequestException:
                return 502
            self.passed += 1
            if self.passed % 20:
                return status
            self.denied += 1
            return 503

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response_only(relay._pass_on(self.headers, body))
                self.send_header("Content-Length", "0")
                self.end_headers()

        return Handler


class Refuser:
    """A registry that has nothing; `answer` gives status, headers and body of the writes."""

    def __init__(self, answer: Callable[[str], tuple[int, dict[str, str], str]]) -> None:
        self._http = ThreadingHTTPServer((HOST, 0), self._make_handler(answer))
        self._http.daemon_threads = True
        self.url = f"http://{HOST}:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,))
        self._thread.start()

    def clean_up(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _make_handler(self, answer: Callable[[str], Any]) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def respond(self) -> None:
                status, headers, body = answer(self.command)
                self.send_response_only(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body.encode())

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = respond

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


class Registry:
    """A CNCF registry, with accounts unless `accounts` is false, which may notify one RNS.

    `config` changes sections of its configuration; registries may share a `storage` directory.
    """

    def __init__(
        self,
        directory: Path,
        notify: Server | Relay | None = None,
        accounts: bool = True,
        storage: Path | None = None,
        config: Mapping[str, Any] | None = None,
        program: str = "docker-registry",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._executable = program
        self._directory = directory
        self.storage = storage or directory / "storage"
        self.port = free_port()
        self._debug_port = free_port()
        self.debug_url = f"http://{HOST}:{self._debug_port}"
        self.address = f"{HOST}:{self.port}"
        self._program: Program | None = None
        self._config_file = directory / "registry.yml"
        document: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.storage)},
                "delete": {"enabled": True},
            },
            "http": {
                "addr": self.address,
                "secret": "shared by the nodes of a registry",
                "debug": {"addr": f"{HOST}:{self._debug_port}"},
            },
        }
        if accounts:
            file = directory / "htpasswd"
            file.write_text("".join(_htpasswd_line(name) for name in PASSWORDS))
            document["auth"] = {"htpasswd": {"realm": "registry", "path": str(file)}}
        if notify:
            document["notifications"] = _notifications(notify)
        for section, values in (config or {}).items():
            document[section] = {**document.get(section, {}), **values}
        self._has_tls = "tls" in document["http"]
        self.url = f"{'https' if self._has_tls else 'http'}://{self.address}"
        self._config_file.write_text(yaml.safe_dump(document))

    @property
    def program(self) -> Program:
        assert self._program is not None, "never started"
        return self._program

    def start(self) -> None:
        command = [self._executable, "serve", str(self._config_file)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
        self._program = Program("registry", command, self._directory, environment)
        eventually(self._is_up, READY_S, "the registry answers")

    def make_read_only(self) -> None:
        """Restart it so that it takes no pushes."""
        self.program.terminate()
        document = yaml.safe_load(self._config_file.read_text())
        document["storage"]["maintenance"] = {"readonly": {"enabled": True}}
        self._config_file.write_text(yaml.safe_dump(document))
        self.start()

    def _is_up(self) -> bool:
        if not self._has_tls:
            return answers(f"{self.url}/v2/", 200, 401)
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def clean_up(self) -> None:
        if self._program is not None:
            self._program.kill_group()

    def pending(self) -> int:
        """How many events wait for their delivery."""
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(f"{self.debug_url}/debug/vars", timeout=5)
        (endpoint,) = answer.json()["registry"]["notifications"]["endpoints"]
        return int(endpoint["Metrics"]["Pending"])

    def wait_until_delivered(self, within: float = 15.0) -> None:
        """Return when every event so far was answered with success."""
        time.sleep(0.05)  # an event reaches the queue a moment after the client has its answer
        eventually(lambda: self.pending() == 0, within, "every event is delivered")


def _notifications(server: Server | Relay) -> dict[str, Any]:
    endpoint = {
        "name": "rns",
        "url": f"{server.url}/events",
        "headers": {"Authorization": [f"Bearer {TOKEN}"]},
        "timeout": "1s",
        "threshold": 5,
        "backoff": "1s",
    }
    return {"events": {"includereferences": True}, "endpoints": [endpoint]}


def _htpasswd_line(name: str) -> str:
    hashed = bcrypt.hashpw(PASSWORDS[name].encode(), bcrypt.gensalt(4)).decode()
    return f"{name}:{hashed}\n"


@contextmanager
def cleaned_up(program: Any) -> Iterator[Any]:
    """End a Server or Registry when the context ends, however it ends."""
    try:
        yield program
    finally:
        program.clean_up()
