"""Embed many texts in several requests."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from typing_extensions import override

from resilient_ai.core.call import Call, Departures, Next, OperationMiddleware
from resilient_ai.core.checks import check_count
from resilient_ai.core.errors import CallRejected, DeadlineExceeded, InvalidResponse, StatusError
from resilient_ai.core.events import BatchDone
from resilient_ai.core.operations import Embed
from resilient_ai.core.results import Cost, EmbedResult, Usage
from resilient_ai.core.vectors import Vectors

_TOO_MANY = "array_above_max_length"


@dataclass(frozen=True, kw_only=True)
class Batching(OperationMiddleware):
    """Embed many texts in several requests, and return their vectors as one result in the order of the texts.

    A service takes only so many texts in a request, and a request that fails costs all of its texts again. What stands inside
    of this middleware sees each batch as a call of its own, so that it is retried, limited and billed alone. A batch that the
    service finds too large is halved, down to single texts. The first batch that fails for good cancels the others, and its
    error is the error of the call. One that a policy refuses, such as a budget, cancels nothing that is paid for: no further
    batch begins, those under way come to their end, and the error says with `sent` and in words what was embedded and what it
    cost. A call that fits into one batch passes through as it is.

    Args:
        size: Texts per request, 1 to 1024.
        in_flight: Requests of one call at once, at least 1.

    Raises:
        ValueError: If a number is out of its range.

    >>> Batching(size=256)
    Batching(size=256, in_flight=4)
    """

    inside_of: ClassVar[Mapping[str, str]] = {
        "Cache": "only the texts that are not in the cache are put into batches",
        "Routing": "all batches of a call must be embedded by the same model",
    }

    size: int = 96
    in_flight: int = 4

    def __post_init__(self) -> None:
        check_count("size", self.size, 1, 1024)
        check_count("in_flight", self.in_flight, 1)

    @override
    async def embed(self, call: Call[EmbedResult], proceed: Next[EmbedResult]) -> EmbedResult:
        """Send the texts in batches."""
        operation = call.operation
        if not isinstance(operation, Embed):
            return await proceed(call)
        count = len(operation.texts)
        if count > self.size:
            return await _Batches(call, operation, proceed, self.size).run(self.in_flight)
        try:
            return await proceed(call)
        except StatusError as error:
            if count == 1 or not _is_too_large(error):
                raise
        return await _Batches(call, operation, proceed, _half(count)).run(self.in_flight)


class _Batches:
    """The batches of one call: those still to be sent, and the results of those that are done."""

    def __init__(self, call: Call[EmbedResult], operation: Embed, proceed: Next[EmbedResult], size: int) -> None:
        self._call = call
        self._operation = operation
        self._proceed = proceed
        self._size = size
        self._done = 0
        self._refused: CallRejected | None = None
        self._under_way: dict[asyncio.Task[None], Departures] = {}
        self._results: dict[int, EmbedResult] = {}
        count = len(operation.texts)
        self._pending = deque((start, min(start + size, count)) for start in range(0, count, size))

    async def run(self, in_flight: int) -> EmbedResult:
        """Send everything, at most `in_flight` batches at once, and join the results."""
        # A TaskGroup would wrap the error, and on Python 3.11 its own cancellation stays counted on the caller's task,
        # where it would hide that of an enclosing timeout.
        workers = [asyncio.create_task(self._work()) for _ in range(min(in_flight, len(self._pending)))]
        try:
            done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        except GeneratorExit:  # a coroutine that is closed cannot wait for anything
            _cancel(workers)
            raise
        except BaseException:
            await _end(workers)
            raise
        await _end(workers)
        try:
            if self._refused is not None:
                raise self._refused
            for worker in sorted(done, key=workers.index):
                worker.result()  # raises what the worker raised, a cancellation included
        except CallRejected as error:
            self._add_facts(error)
            raise
        return self._joined()

    async def _work(self) -> None:
        try:
            await self._work_off()
        except Exception as error:
            if self._refused is not None:  # the first refusal is the one that is told
                return
            # Where the time is over, none is left to wait for the others.
            if not isinstance(error, CallRejected) or isinstance(error, DeadlineExceeded):
                raise
            self._refused = error
            self._cancel_those_not_sent()

    async def _work_off(self) -> None:
        while self._pending and self._refused is None:
            start, stop = self._pending.popleft()
            if stop - start > self._size:
                self._split(start, stop)
                continue
            try:
                result = await self._send(start, stop)
            except StatusError as error:
                if stop - start == 1 or not _is_too_large(error):
                    raise
                # What is too large for one batch is so for the others: they are split before they are sent.
                self._size = min(self._size, _half(stop - start))
                self._split(start, stop)
                continue
            self._results[start] = result
            self._call.arrived(self._operation.texts[start:stop], result)
            self._done += stop - start
            total = len(self._operation.texts)
            self._call.emit(BatchDone(call_id=self._call.id, model=self._call.model, done=self._done, total=total))

    def _split(self, start: int, stop: int) -> None:
        middle = start + _half(stop - start)
        self._pending.appendleft((middle, stop))
        self._pending.appendleft((start, middle))

    async def _send(self, start: int, stop: int) -> EmbedResult:
        batch = self._operation.model_copy(update={"texts": self._operation.texts[start:stop]})
        branch = self._call.branch().with_body(batch, f"{start}-{stop}")
        self._under_way[_this_task()] = branch.departed
        result = await self._proceed(branch)
        if len(result.vectors) != stop - start:
            raise InvalidResponse(
                f"{stop - start} texts were sent and {len(result.vectors)} vectors came back", model=self._call.model
            )
        return result

    def _cancel_those_not_sent(self) -> None:
        # What waits in a queue or for a connection would only be sent after the refusal, and has cost nothing yet.
        for worker, departed in self._under_way.items():
            if not departed.count and not worker.done() and worker is not _this_task():
                worker.cancel()

    def _add_facts(self, error: CallRejected) -> None:
        """Make the error of one batch that of the call, of which other batches may have been sent."""
        if self._call.departed.count:
            error.sent = True
            cost = self._call.record.cost()
            spent = (
                "an unknown amount" if cost is None else f"{'' if cost.complete else 'at least '}{cost.amount:f} USD"
            )
            done = f"{self._done} of {len(self._operation.texts)} texts were embedded"
            error.args = (f"{done}, the call has cost {spent}, and then one batch was refused: {error}",)

    def _joined(self) -> EmbedResult:
        results = [self._results[start] for start in sorted(self._results)]
        try:
            vectors = Vectors.join(result.vectors for result in results)
        except ValueError as error:
            raise InvalidResponse(f"the batches do not fit together: {error}", model=self._call.model) from error
        update = {
            "vectors": vectors,
            "hits": sum(result.hits for result in results),
            "usage": Usage.total(result.usage for result in results),
            "cost": Cost.total(result.cost for result in results),
            "request_id": None,
        }
        return results[0].model_copy(update=update)


def _this_task() -> "asyncio.Task[None]":
    return cast("asyncio.Task[None]", asyncio.current_task())


def _cancel(workers: Sequence[asyncio.Task[None]]) -> None:
    for worker in workers:
        worker.cancel()


async def _end(workers: Sequence[asyncio.Task[None]]) -> None:
    _cancel(workers)
    await asyncio.gather(*workers, return_exceptions=True)


def _half(count: int) -> int:
    return (count + 1) // 2


def _is_too_large(error: StatusError) -> bool:
    return error.status == 413 or (error.status in {400, 422} and error.code == _TOO_MANY)
