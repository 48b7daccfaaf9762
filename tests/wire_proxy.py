"""A proxy before a wire server, which then looks like a replica set or mongos, and can fail.

It reads OP_MSG, and OP_QUERY of the first handshake, with `bson`. A command that is retried by its
transaction number gets the answer of its first run, as on a replica set.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import bson
from pymongo.uri_parser import parse_uri

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
HEADER = struct.Struct("<iiii")  # length, request id, of which request this is the answer, opcode
UNASKED = {"hello", "ismaster", "isMaster", "saslStart", "saslContinue", "ping", "endSessions"}

Document = dict[str, Any]
Fault = Literal["not primary", "stepped down", "unsure", "cut", "lost", "not allowed"]
"""What becomes of a command. Refused: `not primary`, `stepped down`, `not allowed`.

Carried out, but not known to a majority when the primary stepped down: `unsure`. The network is
cut: in the middle of a command (`cut`), or before its answer (`lost`)."""

CODES = {
    "not primary": (10107, "NotWritablePrimary"),
    "stepped down": (189, "PrimarySteppedDown"),
    "not allowed": (13, "Unauthorized"),
}
Weather = Callable[[str], Fault | None]


class Message(NamedTuple):
    """One message of the wire protocol, as it came and as it reads."""

    raw: bytes
    request_id: int
    opcode: int
    body: Document  # with the document sequences of OP_MSG

    @property
    def name(self) -> str:
        """The command."""
        return next(iter(self.body))


class WireProxy:
    """Listens on a free port until `close`. `weather` says what becomes of each command."""

    def __init__(self, uri: str, *, is_cluster: bool = False) -> None:
        parsed = parse_uri(uri)
        self._upstream = parsed["nodelist"][0]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        user = f"{parsed['username']}:{parsed['password']}@" if parsed["username"] else ""
        self._is_cluster = is_cluster
        of_set = "" if is_cluster else "&replicaSet=rs"
        self.uri = f"mongodb://{user}{self.address}/?authSource=admin{of_set}"
        self.weather: Weather = lambda command: None
        self.has_primary = True
        self.granted: set[str] = set()  # commands that are not passed on, and answered with yes
        self.seen: list[Document] = []  # commands, also those that failed
        self.faults = 0
        self._answers: dict[tuple[bytes, int], Document] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no connection any more."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._upstream) as server:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError, EOFError):
                while (answer := self._answer(_read(client), server)) is not None:
                    client.sendall(answer)

    def _answer(self, asked: Message, server: socket.socket) -> bytes | None:
        """The answer to one message; None cuts the connection."""
        if asked.name in UNASKED:
            return self._look_like_more(asked, _pass_on(asked.raw, server))
        fault: Fault | None = "not primary" if not self.has_primary else self.weather(asked.name)
        with self._lock:
            self.seen.append(asked.body)
            self.faults += fault is not None
        if asked.name in self.granted:
            return _message(asked, {"ok": 1.0})
        if fault in CODES:
            return _message(asked, _error(*CODES[fault]))
        if fault == "cut":
            server.sendall(asked.raw[: len(asked.raw) // 2])
            return None
        answer = self._carry_out(asked, server)
        if fault == "lost":
            return None
        if fault == "unsure" and "writeConcern" in asked.body:
            answer |= {"writeConcernError": _error(*CODES["stepped down"])}
            answer |= {"errorLabels": ["RetryableWriteError"]}
        return _message(asked, answer)

    def _carry_out(self, asked: Message, server: socket.socket) -> Document:
        """As a replica set does: what has a transaction number once, however often it is sent."""
        number = asked.body.get("txnNumber")
        if number is None:
            return _pass_on(asked.raw, server).body
        key = (bytes(asked.body["lsid"]["id"]), int(number))
        if key not in self._answers:
            plain = {name: value for name, value in asked.body.items() if name != "txnNumber"}
            self._answers[key] = _pass_on(_message(asked, plain, asked.request_id), server).body
        return dict(self._answers[key])

    def _look_like_more(self, asked: Message, answer: Message) -> bytes:
        if "maxWireVersion" not in answer.body:
            return answer.raw
        body = answer.body | {"msg": "isdbgrid"} if self._is_cluster else answer.body | self._role()
        body.pop("topologyVersion", None)  # who has it waits for news, and asks no more
        return _message(asked, body)

    def _role(self) -> Document:
        return {
            "setName": "rs",
            "hosts": [self.address],
            "me": self.address,
            "ismaster": self.has_primary,
            "isWritablePrimary": self.has_primary,
            "secondary": not self.has_primary,
        }


def _error(code: int, name: str) -> Document:
    labels = [] if name == "Unauthorized" else ["RetryableWriteError"]
    return {"ok": 0.0, "code": code, "codeName": name, "errmsg": name, "errorLabels": labels}


def _message(asked: Message, body: Document, request_id: int | None = None) -> bytes:
    """A message with a document: an answer, or with a `request_id` the request itself."""
    document = bson.encode(body)
    if asked.opcode == OP_QUERY:
        payload, opcode = struct.pack("<iqii", 8, 0, 0, 1) + document, OP_REPLY
    else:
        payload, opcode = struct.pack("<IB", 0, 0) + document, OP_MSG
    ids = (0, asked.request_id) if request_id is None else (request_id, 0)
    return HEADER.pack(HEADER.size + len(payload), *ids, opcode) + payload


def _pass_on(raw: bytes, server: socket.socket) -> Message:
    server.sendall(raw)
    return _read(server)


def _read(connection: socket.socket) -> Message:
    header = _read_bytes(connection, HEADER.size)
    length, request_id, _, opcode = HEADER.unpack(header)
    payload = _read_bytes(connection, length - HEADER.size)
    return Message(header + payload, request_id, opcode, _body(opcode, payload))


def _read_bytes(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        if not (some := connection.recv(size - len(received))):
            raise EOFError
        received += some
    return bytes(received)


def _body(opcode: int, payload: bytes) -> Document:
    if opcode == OP_REPLY:
        return bson.decode(payload[20:])
    if opcode == OP_QUERY:
        return bson.decode(payload[payload.index(b"\0", 4) + 9 :])
    body: Document = {}
    at = 4
    while at < len(payload):
        kind, at = payload[at], at + 1
        (size,) = struct.unpack_from("<i", payload, at)
        if kind == 0:
            body = bson.decode(payload[at : at + size]) | body
        else:
            name_end = payload.index(b"\0", at + 4)
            documents = bson.decode_all(payload[name_end + 1 : at + size])
            body[payload[at + 4 : name_end].decode()] = documents
        at += size
    return body
