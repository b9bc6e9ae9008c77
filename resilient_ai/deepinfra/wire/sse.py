"""Server-sent events: from bytes at any split to the data of whole events."""

from resilient_ai.core.errors import InvalidResponse

_BOM = b"\xef\xbb\xbf"
_COLON = ord(":")
_LF = ord("\n")


class EventReader:
    r"""Cuts a body into events by the rules of the WHATWG standard, whatever the network made of it.

    Lines end with LF, CRLF or CR; comments and all fields but `data` are passed over; several `data` lines are one event.
    A service that sends nothing but `data: ...` and an empty line gets a path of its own, which looks at no line alone.

    Args:
        max_event: Bytes that one event may have.

    >>> reader = EventReader()
    >>> reader.feed(b": ping\r\n\r\ndata: on"), reader.feed(b"e\r\n\r\ndata: two\n\n")
    ([], [b'one', b'two'])
    """

    __slots__ = ("_after_cr", "_clean", "_data", "_data_size", "_head", "_max", "_rest", "_rest_size")

    def __init__(self, *, max_event: int = 32 * 1024 * 1024) -> None:
        if max_event < 1:
            raise ValueError(f"max_event must be >= 1, got {max_event!r}")
        self._max = max_event
        self._head: bytes | None = b""  # bytes that may become a byte order mark; None once that is settled
        self._rest: list[bytes] = []  # pieces of a line whose end has not come
        self._rest_size = 0
        self._data: list[bytes] = []  # lines of an event whose empty line has not come
        self._data_size = 0
        self._clean = False  # nothing is pending, so that the next bytes begin a line
        self._after_cr = False  # a CR ended the last bytes: an LF now belongs to it

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event that these bytes complete.

        Raises:
            InvalidResponse: If an event is longer than `max_event`.
        """
        # One event of one line, or several of them, is what nearly always arrives; then no line is looked at alone.
        size = len(chunk)
        if self._clean and chunk[:6] == b"data: " and chunk[-1] == _LF and size <= self._max:
            if b"\r" not in chunk:
                if chunk.find(b"\n") == size - 2:
                    return [chunk[6:-2]]
                events = chunk[6:-2].split(b"\n\ndata: ")
                # Where every line end belongs to the end of an event, no event has a second line.
                if chunk[-2] == _LF and chunk.count(b"\n") == 2 * len(events):
                    return events
            elif chunk.find(b"\r\n\r\n") == size - 4 == chunk.find(b"\r") == chunk.find(b"\n") - 1:
                return [chunk[6:-4]]
        events = self._feed_slowly(chunk)
        self._clean = self._head is None and not (self._rest or self._data or self._after_cr)
        return events

    def flush(self) -> bytes | None:
        """Forget the event that lacks its empty line, and return its data so far, None if there is none.

        By the standard it does not count. It is returned for the one mark whose meaning does not depend on its end.
        """
        if self._rest:
            self._take_line(self._joined(b""))
        data = b"\n".join(self._data) if self._data else None
        self._data, self._data_size = [], 0
        return data

    def _feed_slowly(self, chunk: bytes) -> list[bytes]:
        if self._head is not None:
            chunk = self._without_mark(chunk)
        if not chunk:
            return []
        end = b"\r\n\r\n" if b"\r" in chunk else b"\n\n"
        if self._data or self._after_cr or end not in chunk:
            return self._by_lines(chunk)
        return self._by_events(self._joined(chunk), end)

    def _without_mark(self, chunk: bytes) -> bytes:
        head = (self._head or b"") + chunk
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _joined(self, chunk: bytes) -> bytes:
        if self._rest:
            chunk = b"".join((*self._rest, chunk))
            self._rest, self._rest_size = [], 0
        return chunk

    def _by_events(self, block: bytes, end: bytes) -> list[bytes]:
        stop = block.rfind(end)
        if block.startswith(b"data: ") and stop <= self._max:
            events = block[6:stop].split(end + b"data: ")
            lines = 2 * len(events)
            after = stop + len(end)
            if block.count(b"\n", 0, after) == lines and block.count(b"\r", 0, after) == (lines if len(end) > 2 else 0):
                return events + self._by_lines(block[after:]) if after < len(block) else events
        return self._by_lines(block)

    def _by_lines(self, chunk: bytes) -> list[bytes]:
        if self._after_cr and chunk[0] == _LF:
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        if b"\n" not in chunk and b"\r" not in chunk:
            self._keep(chunk)
            return []
        lines = self._joined(chunk).splitlines()  # of bytes: at LF, CRLF and CR, nothing else
        tail = b"" if chunk.endswith((b"\n", b"\r")) else lines.pop()
        events: list[bytes] = []
        for line in lines:
            if line:
                self._take_line(line)
            elif self._data:
                events.append(b"\n".join(self._data))
                self._data, self._data_size = [], 0
        self._keep(tail)
        return events

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._rest.append(piece)
            self._rest_size += len(piece)
            self._check()

    def _take_line(self, line: bytes) -> None:
        if line[0] == _COLON:
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_size += len(value) + 1
            self._check()

    def _check(self) -> None:
        if self._rest_size + self._data_size > self._max:
            raise InvalidResponse(f"an event of the stream is longer than {self._max} bytes")
