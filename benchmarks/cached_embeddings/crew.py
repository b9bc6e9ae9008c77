"""The processes of all contenders, alive at the same time and asked in turn."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cached_embeddings.case import Case
from benchmarks.cached_embeddings.contenders import CONTENDERS

ROOT = Path(__file__).parent.parent.parent
_LIMIT = 300.0  # seconds for one order


class Member:
    """A contender's process; `trouble` says why it takes no part, or no longer does.

    Args:
        key: The contender.
        case: What it is given.
        peers: The environment of the peers, None where they are not asked.
    """

    def __init__(self, key: str, case: Case, peers: Path | None) -> None:
        self.trouble = _absent(key, case, peers)
        self._process: subprocess.Popen[str] | None = None
        if self.trouble:
            return
        python = str(peers / "bin" / "python") if peers and CONTENDERS[key].package else sys.executable
        given = {**asdict(case), "vectors": str(case.vectors), "folder": str(case.folder)}
        case.folder.mkdir()
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.cached_embeddings.worker", key, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=_environment(),
        )

    def ask(self, order: str) -> dict[str, Any]:
        """Give an order and return the answer, empty where there is none."""
        if self._process is None:
            return {}
        assert self._process.stdin
        assert self._process.stdout
        watch = threading.Timer(_LIMIT, self._process.kill)
        watch.start()
        try:
            print(order, file=self._process.stdin, flush=True)
            told: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            told = {"trouble": "failed: it ended without a word, or took too long"}
        finally:
            watch.cancel()
        if trouble := told.pop("trouble", ""):
            self.trouble = trouble
            self.end()
        return told

    def end(self) -> None:
        """Let the process end by itself, and help where it does not."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.close()
            process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait(10)
        process.stdout.close()


def _absent(key: str, case: Case, peers: Path | None) -> str:
    contender = CONTENDERS[key]
    if contender.redis and case.redis is None:
        return "skipped: there is no redis-server"
    if not contender.package:
        return ""
    if peers is None:
        return "skipped: without peers"
    if not (peers / "bin" / "python").exists():
        return f"skipped: there is no {peers.name}"
    reasons = peers / "missing.json"
    missing: dict[str, str] = json.loads(reasons.read_text()) if reasons.exists() else {}
    return f"skipped: not installed ({missing[contender.package]})" if contender.package in missing else ""


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RESILIENT_AI_")}
    return kept | {"NO_PROXY": "127.0.0.1"}
