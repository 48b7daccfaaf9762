"""An HTTP server that answers as a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit


class Request(NamedTuple):
    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Any
    body: bytes

    @property
    def authorization(self) -> str:
        return self.headers.get("Authorization", "")


class Answer(NamedTuple):
    """A Content-Length among `headers` is sent even where it is a lie."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


Responder = Callable[[Request], Answer]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a client may hang up."""


class FakeRegistry:
    """`on` sets what a method and path answer: one after the other, the last one for ever.

    What is not set answers 404.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.released = threading.Event()  # ends every `hang`
        self._answers: dict[tuple[str, str], list[Answer | Responder]] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._make_handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def on(self, method: str, path: str, *answers: Answer | Responder) -> None:
        self._answers[method, path] = list(answers)

    def hang(self, request: Request) -> Answer:
        """A responder that lets its client wait."""
        self.released.wait(60)
        return Answer(503)

    def asked(self, method: str, path: str = "") -> list[Request]:
        """The requests of a method, in order; `path` is how theirs ends."""
        return [
            request
            for request in self.requests
            if request.method == method and request.path.endswith(path)
        ]

    def _answer(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            answers = self._answers.get((request.method, request.path), [Answer(404)])
            answer = answers[0] if len(answers) == 1 else answers.pop(0)
        return answer if isinstance(answer, Answer) else answer(request)

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def respond(self) -> None:
                parts = urlsplit(self.path)
                query = tuple(parse_qsl(parts.query))
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = fake._answer(Request(self.command, parts.path, query, self.headers, body))
                self.send_response_only(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in answer.headers:
                    self.send_header("Content-Length", str(len(answer.body)))
                elif self.command != "HEAD":
                    self.close_connection = True
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = respond

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
