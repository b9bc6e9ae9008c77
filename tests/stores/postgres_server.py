"""A PostgreSQL of the tests' own: a private process, port and folder, run by an ordinary user, with a new database for each test."""

import contextlib
import functools
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

_START = 30.0
_NOBODY = {"user": "nobody", "group": "nogroup", "extra_groups": []}
_SERVER = pytest.StashKey()
_PASSWORD = "s3cret/with@signs"  # it guards an empty database on 127.0.0.1


class PostgresServer:
    """A `postgres` on a free port of 127.0.0.1; what it keeps outlives its process, and not the tests."""

    def __init__(self, programs, folder):
        self._programs, self._folder, self._data = programs, folder, folder / "data"
        self._process = None
        self._serial = itertools.count(1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        # The server refuses to be run by root.
        self._user = _NOBODY if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(folder, **{name: self._user[name] for name in ("user", "group")})
        word = folder / "password"
        word.write_text(_PASSWORD)
        if self._user:
            shutil.chown(word, self._user["user"])
        options = ["-U", "tester", "-A", "scram-sha-256", f"--pwfile={word}", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run(
            [programs / "initdb", "-D", self._data, *options],
            check=True,
            stdout=subprocess.DEVNULL,
            **self._as_user,
        )
        self.start()

    @property
    def _as_user(self):
        return {"cwd": self._folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, **self._user}

    @property
    def running(self):
        return self._process is not None

    def url(self, database, password=_PASSWORD):
        """The address of a database."""
        word = password.replace("/", "%2F").replace("@", "%40")
        return f"postgresql://tester:{word}@127.0.0.1:{self.port}/{database}"

    def database(self):
        """Make an empty database, and return its address."""
        name = f"test{next(self._serial)}"
        self.command(f"CREATE DATABASE {name}")
        return self.url(name)

    @functools.cached_property
    def _ready(self):
        """The name of a database in which the tables are made, once, and which is copied then."""
        from resilient_ai.stores._postgres_address import target_of
        from resilient_ai.stores._postgres_link import Link

        url = self.database()
        link = Link(target_of(url, schema="resilient_ai", durable=True))
        link.connection()
        link.drop()
        return url.rpartition("/")[2]

    def ready_database(self):
        """Make a database in which the tables are there, and return its address."""
        name = f"test{next(self._serial)}"
        self.command(f"CREATE DATABASE {name} TEMPLATE {self._ready} STRATEGY FILE_COPY")
        return self.url(name)

    def start(self):
        """Start, and wait until it answers."""
        # Nothing here is to outlive a loss of power.
        options = ["-c", "fsync=off", "-c", "max_connections=60", "-c", "shared_buffers=32MB"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    *["-D", self._data, "-h", "127.0.0.1", "-p", str(self.port), "-k", ""],
                    *options,
                ],
                stdout=log,
                stderr=log,
                **self._as_user,
            )
        until = time.monotonic() + _START
        while not self._answers():
            if time.monotonic() > until or self._process.poll() is not None:
                self.kill()
                raise RuntimeError(f"postgres did not start: {(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self):
        """Kill it, as a crash would, and wait for its end and that of all its processes."""
        if self._process is None:
            return
        listed = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        children = listed.read_text().split() if listed.exists() else []
        self._process.kill()
        self._process.wait(30)
        for child in children:
            # They notice by themselves that the first one is gone; until then its memory cannot be had anew.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        while any(Path(f"/proc/{child}").exists() for child in children):
            time.sleep(0.01)
        self._process = None

    def stop(self):
        """Let it end in order, without waiting for clients."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def command(self, sql, *values, url=None):
        """Ask it past everything that is tested."""
        import psycopg

        with psycopg.connect(url or self.url("postgres"), autocommit=True) as connection:
            cursor = connection.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else None

    def _answers(self):
        import psycopg

        try:
            self.command("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


def _programs():
    """The folder of initdb and postgres: on the path, or where Debian puts them."""
    on_path = shutil.which("postgres")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next(
        (folder for folder in folders if all((folder / name).exists() for name in ("initdb", "postgres"))), None
    )


def shared_postgres(request):
    """The server of this run of pytest, started for the first test that asks for it and stopped at the end.

    Without the programs the test is skipped, or fails where they must be there.
    """
    config = request.config
    if _SERVER in config.stash:
        return config.stash[_SERVER]
    programs = _programs()
    if programs is None:
        reason = "postgresql is not installed"
        if os.environ.get("CI_REQUIRES_SERVICES"):
            pytest.fail(reason)
        pytest.skip(reason)
    # Not below the folder of pytest, which only its own user may enter.
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    server = config.stash[_SERVER] = PostgresServer(programs, Path(folder.name))
    config.add_cleanup(server.stop)
    return server
