"""Time, CPU and memory of one read."""

import ctypes
import gc
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Reading:
    """What one read took.

    Args:
        seconds: By the clock on the wall.
        cpu: Seconds of all threads of this process; a Redis works elsewhere.
        growth: Bytes of memory at the peak beyond those before; None where the system does not tell.
    """

    seconds: float
    cpu: float
    growth: int | None


async def measured(read: Callable[[], Awaitable[Any]]) -> tuple[Any, Reading]:
    """Read once; return the answer as well."""
    before = _settled()
    cpu, started = time.process_time(), time.perf_counter()
    answer = await read()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = _status("VmHWM:")
    return answer, Reading(seconds, cpu, None if before is None or peak is None else max(0, peak - before))


def _settled() -> int | None:
    """Give back what is free, forget the last peak, and return the memory in use."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else the next read grows into what the last one left
        _RESET.write_text("5")
    except (AttributeError, OSError):
        return None
    return _status("VmRSS:")


def _status(name: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
