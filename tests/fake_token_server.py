"""A token server as docker_auth's: what it knows, what it was asked, how it can fail."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = json.dumps({"token": "a.b.c", "access_token": "a.b.c"})


class FakeTokenServer:
    """Answers 401 to whom it does not know. `failing` answers instead: status, headers, body."""

    def __init__(self) -> None:
        self.accounts = {"alice": "secret-alice", "Zoë": "pässword", "long": "x" * 100}
        self.failing: tuple[int, dict[str, str], str] | None = None
        self.lets_everybody_in = False
        self.asked: list[tuple[str, str, str]] = []  # account, password, query
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/auth"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def asked_for(self) -> list[str]:
        """The accounts that it was asked for, without those that were made up."""
        return [name for name, _, _ in self.asked if not name.startswith("rns-check-")]

    def stop(self) -> None:
        """Answer nothing more."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _answer(self, path: str, authorization: str) -> tuple[int, dict[str, str], str]:
        scheme, _, credentials = authorization.partition(" ")
        name, _, password = base64.b64decode(credentials).decode().partition(":")
        query = urlsplit(path).query
        self.asked.append((name, password, query))
        if self.failing:
            return self.failing
        assert scheme == "Basic"
        if parse_qs(query).get("account") != [name]:
            return 400, {}, "Bad request: user and account are not the same"
        if self.lets_everybody_in or self.accounts.get(name) == password:
            return 200, {"Content-Type": "application/json"}, TOKEN
        return 401, {"WWW-Authenticate": 'Basic realm="x"'}, "Auth failed."

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                given = self.headers.get("Authorization", "")
                status, headers, body = server._answer(self.path, given)
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@contextmanager
def running_token_server() -> Iterator[FakeTokenServer]:
    """One that is stopped when the block ends."""
    server = FakeTokenServer()
    try:
        yield server
    finally:
        server.stop()
