"""One send that several callers wait for."""

import asyncio
from array import array
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from resilient_ai.core.call import Call, CallRecord, Next
from resilient_ai.core.ledger import Savings
from resilient_ai.core.operations import Embed
from resilient_ai.core.results import EmbedResult
from resilient_ai.core.streams import StreamEnd, StreamResult
from resilient_ai.core.vectors import Vectors
from resilient_ai.middleware._fan_out import FanOut, copy_of
from resilient_ai.middleware._leaving import let_end
from resilient_ai.middleware._savings import write_spared

R = TypeVar("R")


class _Passenger:
    """One of those who wait: its call, its record, and until when it does."""

    __slots__ = ("call", "deadline", "record")

    def __init__(self, call: Call[Any]) -> None:
        self.call = call
        self.record = call.record
        self.deadline = call.deadline


class Flight(Generic[R]):
    """A call that is sent in a task of its own, so that none of those who wait for it takes it down by leaving.

    Args:
        call: The first of the calls.
        proceed: Sends it.
        when_over: Called once nobody may join any more.
        savings: Where those who joined are written down.

    Attributes:
        leader: The id of the first call.
        leader_span: The span of the first call, None where it has none.
        is_open: Whether others may join.
    """

    def __init__(
        self,
        call: Call[R],
        proceed: Next[R],
        when_over: "Callable[[Flight[R]], None]",
        savings: Savings | None = None,
    ) -> None:
        self.leader = call.id
        self.leader_span = call.span
        self.is_open = True
        self._record = CallRecord()
        # As keys, because they keep the order in which they came.
        self._aboard: dict[_Passenger, None] = {}
        self._payer: _Passenger | None = None
        self._came = 0
        self._fan_out: FanOut | None = None
        self._when_over = when_over
        self._savings = savings
        shared = call.replace(record=self._record, waited_for=self._last_deadline)
        self._task: asyncio.Task[R] = asyncio.create_task(self._send(shared, proceed))
        self._task.add_done_callback(self._landed)

    async def wait(self, call: Call[R]) -> R:
        """Wait for the answer on behalf of `call`."""
        passenger = _Passenger(call)
        self._aboard[passenger] = None
        self._came += 1
        try:
            await asyncio.wait([self._task])
        except GeneratorExit:  # a coroutine that is closed cannot wait for anything
            self._leave(passenger)
            raise
        except BaseException:
            if self._leave(passenger):
                try:
                    await asyncio.wait([self._task])
                finally:
                    passenger.record.adopt(self._record)
            raise
        if self._fan_out is not None:
            return cast("R", self._reader(passenger, self._fan_out, call))
        self._settle(passenger)
        self._aboard.pop(passenger)
        answer = self._answer(passenger)
        self._write_spared(passenger)
        return answer

    def _answer(self, passenger: _Passenger) -> R:
        if self._task.cancelled():
            raise asyncio.CancelledError
        error = self._task.exception()
        if error is not None:
            raise error if self._came == 1 else copy_of(error)
        return self._task.result() if self._payer is passenger else _own(self._task.result())

    def _reader(self, passenger: _Passenger, fan_out: FanOut, call: Call[R]) -> StreamResult:
        stream = fan_out.reader(call.clock, lambda: self._leave(passenger), lambda: len(self._aboard) == 1)

        def ended(end: StreamEnd) -> None:
            self._leave(passenger)
            self._settle(passenger)
            # Whoever stops reading has what it wanted; what that would have cost by itself is known of a whole answer only.
            if end.how in {"completed", "closed"} and end.error is None:
                self._write_spared(passenger)

        stream.on_end(ended)
        return stream

    def _settle(self, passenger: _Passenger) -> None:
        """Write on a call what happened: all of it on the first that is there at the end, and on others that they joined."""
        if self._payer is None and (self._fan_out is None or not self.is_open):
            self._payer = passenger
        if self._payer is passenger:
            passenger.record.adopt(self._record)
            return
        shared, own = self._record, passenger.record
        cost = shared.cost()
        own.cache, own.age = "joined", shared.age
        # What was found in the cache and what was sent would each have cost it something.
        if cost is not None:
            own.saved = cost.amount + (shared.saved or 0) if cost.amount else shared.saved

    def _write_spared(self, passenger: _Passenger) -> None:
        if self._payer is not passenger:
            operation = passenger.call.operation
            hits = len(operation.texts) if isinstance(operation, Embed) else 1
            write_spared(self._savings, passenger.call, "joined", hits=hits, saved=passenger.record.saved)

    def _leave(self, passenger: _Passenger) -> bool:
        """Let one go; return whether it was the last, so that what was sent is cancelled."""
        if passenger not in self._aboard:
            return False
        del self._aboard[passenger]
        if self._aboard:
            return False
        if self._fan_out is not None:
            self._fan_out.drop()
        elif self._task.done():
            _free(self._task)
        else:
            let_end(self._task, _free)
        self._close()
        return True

    def _close(self) -> None:
        self.is_open = False
        self._when_over(self)

    async def _send(self, call: Call[R], proceed: Next[R]) -> R:
        result = await proceed(call)
        if isinstance(result, StreamResult):
            self._fan_out = FanOut(result)
            result.on_end(lambda _: self._close())
        return result

    def _landed(self, task: "asyncio.Task[R]") -> None:
        if self._fan_out is None or task.cancelled():
            self._close()

    def _last_deadline(self) -> float | None:
        deadlines = [passenger.deadline for passenger in self._aboard]
        return None if None in deadlines or not deadlines else max(cast("list[float]", deadlines))


def _free(task: "asyncio.Task[Any]") -> None:
    """Let go of what came for nobody."""
    if not task.cancelled() and task.exception() is None and isinstance(result := task.result(), StreamResult):
        result.drop(error=asyncio.CancelledError())  # as one that is cancelled: what had arrived went to nobody


def _own(result: R) -> R:
    """Return a copy of what a caller might change."""
    if not isinstance(result, EmbedResult):
        return result
    buffer = result.vectors.buffer
    vectors = Vectors(array(buffer.typecode, buffer.tobytes()), result.vectors.dimensions)
    return result.model_copy(update={"vectors": vectors})
