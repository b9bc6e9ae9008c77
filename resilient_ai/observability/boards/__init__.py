"""A Grafana dashboard and Prometheus alert rules for what clients report, as files.

The dashboard is kept as the JSON that Grafana reads and writes, and not made by code: what is reviewed is what is shown, and
Grafana is its editor. What its panels must have in common is looked after by tests.
"""

import re
from importlib.resources import files

__all__ = ["NAMES", "RUNBOOK", "text_of"]

NAMES = ("dashboard.json", "alerts.yaml", "provisioning.yaml")
RUNBOOK = "docs/runbook.md"

# No quote, which would end the text it stands in; no "#", behind which a section is named; and nothing that templates of
# Prometheus or Grafana would fill in.
_ADDRESS = re.compile(r"https?://\w[\w.~:/?@!&()*+,;=%-]*", re.ASCII)


def text_of(name: str, runbook: str = RUNBOOK) -> str:
    """Return what is in one of the files.

    Args:
        name: One of `NAMES`.
        runbook: The address of the runbook, to which alerts and panels lead; a copy of the project's `docs/runbook.md`.

    Raises:
        ValueError: If there is no such file, or the runbook's address is none, or has characters that cannot stand there.

    >>> "uid: " in text_of("alerts.yaml"), text_of("alerts.yaml", "https://wiki.example/ai").count("https://wiki.example/ai#")
    (False, 16)
    """
    if name not in NAMES:
        raise ValueError(f"name must be one of {NAMES}, got {name!r:.60}")
    if runbook != RUNBOOK and not _ADDRESS.fullmatch(runbook):
        raise ValueError(
            "runbook must be an address that begins with http:// or https:// and has no spaces, quotes, braces and '#',"
            f" got {runbook!r:.100}"
        )
    return (files(__name__) / name).read_text(encoding="utf-8").replace(RUNBOOK, runbook)
