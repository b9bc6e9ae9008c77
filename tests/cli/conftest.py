"""Fixtures of the command line's tests: a simulated service on a real socket, and a way to run commands against it."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from resilient_ai.cli.app import app
from resilient_ai.simulator import serve

_OWN = ("RESILIENT_AI_", "DEEPINFRA_")


@pytest.fixture(scope="session")
def running():
    with serve() as simulator:
        yield simulator


@pytest.fixture
def simulator(running):
    # What the test before left under way would be counted and billed in this one's books.
    end = time.monotonic() + 10
    while running.stats().in_flight:
        assert time.monotonic() < end
        time.sleep(0.005)
    running.reset()
    return running


@dataclass
class Shell:
    """Runs commands with an environment of their own, in this process or in another."""

    env: dict[str, str | None]
    folder: Path
    runner: CliRunner = field(default_factory=CliRunner)

    def run(self, *args, stdin=None, **env):
        result = self.runner.invoke(app, [str(arg) for arg in args], input=stdin, env={**self.env, **env})
        assert result.exc_info is None or isinstance(result.exc_info[1], SystemExit), result.exc_info
        assert "Traceback" not in result.output
        return result

    def environment(self, **env):
        given = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
        return {name: value for name, value in {**given, **self.env, **env}.items() if value is not None}

    def start(self, *args, first="", **env):
        """Start a command in a process of its own, after the statement `first`."""
        return subprocess.Popen(
            [sys.executable, "-c", f"{first}\nfrom resilient_ai.cli import main; main()", *map(str, args)],
            env=self.environment(**env),
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Commands without a service and without a key."""
    for name in list(os.environ):
        if name.startswith(_OWN):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    env = {"RESILIENT_AI_HOME": str(tmp_path / "home"), "COLUMNS": "100", "NO_COLOR": "1"}
    return Shell(env=env, folder=tmp_path)


@pytest.fixture
def shell(offline, simulator):
    """Commands that reach the simulated service."""
    offline.env |= {"DEEPINFRA_API_KEY": "key", "RESILIENT_AI_BASE_URL": simulator.base_url}
    return offline
