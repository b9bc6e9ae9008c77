"""Runs one scenario of one contender in a process of its own, for so long and no longer."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.resilience.bench import Finding
from benchmarks.resilience.rows import Peer

_RUNNER = Path(__file__).with_name("peer_runner.py")
_NAMES: dict[Peer, str] = {"openai": "openai-python", "litellm": "LiteLLM", "pydantic-ai": "Pydantic AI"}
_PACKAGES: dict[Peer, str] = {"openai": "openai", "litellm": "litellm", "pydantic-ai": "pydantic-ai-slim"}
_OURS_LIMIT, _PEER_LIMIT = 240.0, 45.0  # seconds, with the import; each peer stops by itself after 20


def ours(key: str, url: str) -> Finding:
    """Measure a scenario of ours."""
    command = [sys.executable, "-m", "benchmarks.resilience.ours", key, url]
    found, trouble = _ended(command, _OURS_LIMIT)
    return Finding(found["text"], found["holds"]) if found else Finding(trouble, holds=False)


@dataclass(frozen=True)
class Peers:
    """The environment of the peers.

    Args:
        folder: A virtual environment, and `missing.json` with what could not be installed.
    """

    folder: Path

    def heading(self, peer: Peer) -> str:
        """Return the name and version of a peer."""
        ask = f"import importlib.metadata as m; print(m.version({_PACKAGES[peer]!r}))"
        try:
            done = subprocess.run([self._python, "-c", ask], capture_output=True, text=True, check=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            return _NAMES[peer]
        return f"{_NAMES[peer]} {done.stdout.strip()}"

    def measure(self, key: str, peer: Peer, url: str) -> str:
        """Return what a scenario of a peer found, in words."""
        reason = self._missing(peer)
        if reason:
            return f"not installed ({reason})"
        found, trouble = _ended([self._python, str(_RUNNER), key, peer, url], _PEER_LIMIT)
        return str(found["text"]) if found else trouble

    @property
    def _python(self) -> str:
        return str(self.folder / "bin" / "python")

    def _missing(self, peer: Peer) -> str:
        if not Path(self._python).exists():
            return f"there is no {self.folder.name}"
        reasons = self.folder / "missing.json"
        missing: dict[str, str] = json.loads(reasons.read_text()) if reasons.exists() else {}
        return missing.get(_PACKAGES[peer], "")


def _ended(command: list[str], limit: float) -> tuple[dict[str, object], str]:
    """Return the JSON that a process printed last; or nothing, and why."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESILIENT_AI_")}
    environment["NO_PROXY"] = "127.0.0.1"
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return {}, f"stopped after {limit:g} s"
    try:
        found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {}, f"failed: {(done.stderr.splitlines() or ['no word'])[-1][:120]}"
    return found, ""
