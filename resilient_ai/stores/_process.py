"""Names a running process so that its successor with the same number is not taken for it."""

import os
from pathlib import Path

_PROC = Path("/proc")


def identity(pid: int) -> str | None:
    """Return what tells this process from every other one that had or will have its number; None if there is none.

    On Linux it is the boot, the process namespace and the moment of the start, so that a container started anew, whose
    process is always number 1, is told from the one before. Elsewhere only the number is known.

    >>> identity(os.getpid()) == identity(os.getpid())
    True
    """
    if not (_PROC / "self" / "stat").exists():  # pragma: no cover  # not on Linux
        return _number_only(pid)
    try:
        # The name in the second field may hold anything, so fields are counted from its closing bracket.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    state, started = fields[0], fields[19]
    if state in {"Z", "X"}:  # it has ended, and only its parent has not looked yet
        return None
    boot = (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
    return f"{boot}/{os.readlink(_PROC / 'self' / 'ns' / 'pid')}/{started}"  # noqa: PTH115  # it leads nowhere


def _number_only(pid: int) -> str | None:  # pragma: no cover  # not on Linux
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return "running"
    return "running"
