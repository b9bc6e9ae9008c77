"""The thread that asks a PostgreSQL about sends, so that a question that takes long holds up neither reports nor charges."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from resilient_ai.core.errors import BookUnavailable
from resilient_ai.stores._postgres_address import Target
from resilient_ai.stores._postgres_faults import certain
from resilient_ai.stores._postgres_link import Link
from resilient_ai.stores._worker import Worker

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

_IDLE = 60.0


@dataclass(slots=True, eq=False)
class _Question:
    ask: "Callable[[psycopg.Connection[Any]], Any]"
    answer: "Future[Any]" = field(default_factory=Future[Any])


class PostgresReader:
    """Asks one question after another; its connection is closed once nobody has asked for a minute."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._link = Link(target)
        self._worker: Worker[_Question] = Worker(
            "resilient-ai-questions", self._work, self._link.drop, most=1, every=_IDLE
        )

    @property
    def running(self) -> bool:
        """Whether there is a thread, so that a connection may be open."""
        return self._worker.running

    def ask(self, question: "Callable[[psycopg.Connection[Any]], T]") -> "Future[T]":
        """Ask; where the server is away the answer is `BookUnavailable`."""
        asked = _Question(question)
        self._worker.put(asked)
        return asked.answer

    def finish(self, within: float) -> "Future[None]":
        """Answer what was asked, and close the connection."""
        return self._worker.finish(within)

    def _work(self, questions: Sequence[_Question]) -> None:
        if not questions:
            self._link.drop()
        for question in questions:
            if question.answer.set_running_or_notify_cancel():
                self._answer(question)

    def _answer(self, question: _Question) -> None:
        for again in (self._link.connected, False):
            try:
                question.answer.set_result(question.ask(self._link.connection()))
            except Exception as error:  # noqa: BLE001  # it belongs to whoever asked
                self._link.drop()
                # A server that was started anew has closed its connections, which is found when they are used.
                if again and not certain(error):
                    continue
                reason = self._target.without_secrets(error)
                question.answer.set_exception(BookUnavailable(f"{self._target.place} cannot be asked: {reason}"))
            return
