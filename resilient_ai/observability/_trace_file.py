"""A file of spans, one in a line, as JSON."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from typing_extensions import override

from resilient_ai.middleware._telemetry_faults import passed_over
from resilient_ai.stores._private import private_file

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


class TraceFile(SpanExporter):
    """Writes spans to a file that only this user can read, and begins a new one when it is full.

    Each batch is appended in one step, so that processes which share the file do not write into each other's lines. A full file
    becomes `<name>.1`, in place of the one that was there: there are never more than about two sizes on the disk.

    Args:
        path: The file; one that is there is continued.
        size: Bytes at which the next one is begun.

    Raises:
        OSError: If its folder is not there, it cannot be written, or others could have made it.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self._size = path, size
        self._lock = threading.Lock()
        # Whether the last line lacks its end, as the disk was full.
        self._torn = False
        # A folder that was made would hide that its name is wrong.
        if not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {str(path.parent)!r}")
        private_file(path)

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Append spans; a fault is counted and logged, and the spans are lost."""
        lines = b"".join(line for span in spans if (line := _line_of(span)) is not None)
        try:
            with self._lock:
                self._append(lines)
        except OSError as fault:
            passed_over("tracing", "write to the trace file", fault)
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back here."""
        return True

    @override
    def shutdown(self) -> None:
        """Nothing is held open between two batches."""

    def _append(self, lines: bytes) -> None:
        # Opened anew each time: another process may have begun a new one.
        private_file(self.path)
        if self.path.stat().st_size >= self._size:
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
            self._torn = False
            private_file(self.path)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | _NOFOLLOW)
        try:
            whole = (b"\n" if self._torn else b"") + lines
            self._torn = True
            written = os.write(descriptor, whole)
            self._torn = written < len(whole)
        finally:
            os.close(descriptor)
        if self._torn:
            raise OSError("the disk is full")


def _line_of(span: ReadableSpan) -> bytes | None:
    try:
        return f"{span.to_json(indent=None)}\n".encode()
    except Exception as fault:  # noqa: BLE001 - such as bytes in an attribute, which somebody else has set
        passed_over("tracing", "write a span to the trace file", fault)
        return None
