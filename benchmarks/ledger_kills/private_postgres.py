"""A PostgreSQL of this run's own, which may be killed: a free port of 127.0.0.1, a private folder, an ordinary user."""

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

_START = 60.0
_QUIET = 30.0
_NOBODY: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}
_OTHERS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


def missing() -> str | None:
    """Return what is not there that is needed; None where all is."""
    if importlib.util.find_spec("psycopg") is None:
        return "the package psycopg is not installed"
    if not Path("/proc/self/task").exists():
        return "its processes cannot be found without /proc"
    return "PostgreSQL is not installed" if _programs() is None else None


@contextmanager
def private_postgres() -> "Generator[PrivatePostgres]":
    """Run a server, and stop it at the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = PrivatePostgres(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


class PrivatePostgres:
    """A server with its own settings, so that a commit waits for the disk, and with checksums over all that it keeps.

    Args:
        folder: An empty one for what it keeps; it will belong to whoever runs the server.
    """

    def __init__(self, folder: Path) -> None:
        programs = _programs()
        if programs is None:
            raise RuntimeError("PostgreSQL is not installed")
        self._programs, self._folder = programs, folder
        self._process: subprocess.Popen[Any] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        # The server refuses to be run by root.
        self._as_user: dict[str, Any] = {"cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}
        if os.geteuid() == 0:
            self._as_user |= _NOBODY
            shutil.chown(folder, "nobody", "nogroup")
        # Whoever can reach it may use it: it lives for minutes, and knows nothing but this run.
        options = ["-D", str(folder / "data"), "-U", "tester", "-A", "trust", "-E", "UTF8", "--locale=C", "-k"]
        subprocess.run([programs / "initdb", *options], check=True, stdout=subprocess.DEVNULL, **self._as_user)

    @property
    def url(self) -> str:
        """The address of its database."""
        return f"postgresql://tester@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = ["-D", str(self._folder / "data"), "-h", "127.0.0.1", "-p", str(self._port), "-k", ""]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", *options], stdout=log, stderr=log, **self._as_user
            )
        self.wait()

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            RuntimeError: If it does not, or has ended.
        """
        import psycopg  # noqa: PLC0415  # without it the other ledgers are tried all the same

        until = time.monotonic() + _START
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                self.ask("SELECT 1")
                return
            if time.monotonic() > until or self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"postgres does not answer: {(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def wait_for_quiet(self) -> None:
        """Wait until it has noticed that all its clients are gone, and has brought to an end what they had it do."""
        until = time.monotonic() + _QUIET
        while self.ask(_OTHERS):
            if time.monotonic() > until:
                raise RuntimeError("postgres still has clients")
            time.sleep(0.02)

    def ask(self, sql: LiteralString) -> list[tuple[Any, ...]]:
        """Ask it something."""
        import psycopg  # noqa: PLC0415

        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """End it and all its processes at once, as a crash would."""
        if self._process is None:
            return
        # It stands still meanwhile, so that it starts no process that nobody knows of.
        self._process.send_signal(signal.SIGSTOP)
        children = self._children()
        for pid in (self._process.pid, *children):
            _kill(pid)
        self._process.wait(_QUIET)
        self._process = None
        # Until they are gone their memory cannot be had anew.
        while any(Path(f"/proc/{pid}").exists() for pid in children):
            time.sleep(0.01)

    def kill_one(self, chance: random.Random) -> None:
        """End one of its processes; it ends all others, and starts anew by itself."""
        _kill(chance.choice(self._children()))

    def stop(self) -> None:
        """Let it end in order, without waiting for clients."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_QUIET)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def _children(self) -> list[int]:
        assert self._process is not None
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _programs() -> Path | None:
    """The folder of initdb and postgres: on the path, or where Debian puts them."""
    on_path = shutil.which("postgres")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((each for each in folders if (each / "initdb").exists() and (each / "postgres").exists()), None)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
