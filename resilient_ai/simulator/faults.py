"""Faults on demand: what can go wrong, and the plan that says when it does."""

import random
from collections import deque
from dataclasses import dataclass
from typing import Literal, get_args

from resilient_ai.simulator.errors import Shape

Kind = Literal[
    "status",
    "delay",
    "stall",
    "cut",
    "garbage",
    "error_event",
    "trickle",
    "html",
    "truncated",
    "drop",
]

_MESSAGES = {
    402: "Insufficient balance",  # guess: the body of a 402 is not known.
    403: "Not allowed to use this model",  # guess: as above.
    404: "Model not found",
    413: "Request body too large",  # guess: as above.
    423: "Model is not ready",  # guess: as above.
    429: "Model busy, retry later",
    500: "Inference failed",
    502: "Bad gateway",
    503: "Service unavailable",
    504: "Gateway timeout",
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong with one request; made by the class methods.

    Faults in the middle of an answer take effect after `after` events of a stream, or after half the body of any other
    answer. Nothing is billed for a request that fails before its answer.
    """

    kind: Kind
    code: int = 500
    message: str = ""
    shape: Shape | None = None
    retry_after: float | None = None
    seconds: float = 0.0
    after: int = 0
    pings: bool = False
    native: bool = False
    reset: bool = False

    def __post_init__(self) -> None:
        if not 400 <= self.code <= 599:
            raise ValueError(f"code must be 400 to 599, got {self.code}")
        if self.shape is not None and self.shape not in get_args(Shape):
            raise ValueError(f"shape must be one of {', '.join(get_args(Shape))}, got {self.shape!r}")
        if self.seconds < 0 or self.after < 0:
            raise ValueError(f"seconds and after must be >= 0, got {self.seconds} and {self.after}")

    @classmethod
    def status(
        cls, code: int, *, message: str | None = None, shape: Shape | None = None, retry_after: float | None = None
    ) -> "Fault":
        """An error status. Without a shape, 429 and 500 have the short body and all others that of the route.

        >>> Fault.status(500).message
        'Inference failed'
        """
        if shape is None and code in {429, 500}:
            shape = "short"
        text = _MESSAGES.get(code, f"Status {code}") if message is None else message
        return cls(kind="status", code=code, message=text, shape=shape, retry_after=retry_after)

    @classmethod
    def html(cls, code: int = 502) -> "Fault":
        """The HTML page of a proxy in place of a JSON error."""
        return cls(kind="html", code=code, message=_MESSAGES.get(code, f"Status {code}"), shape="html")

    @classmethod
    def delay(cls, seconds: float) -> "Fault":
        """Wait before the headers, then answer as always."""
        return cls(kind="delay", seconds=seconds)

    @classmethod
    def stall(cls, *, after: int = 3, seconds: float = 3600.0, pings: bool = False) -> "Fault":
        """Fall silent in mid-answer, then go on; with `pings` comment lines keep coming meanwhile."""
        return cls(kind="stall", after=after, seconds=seconds, pings=pings)

    @classmethod
    def cut(cls, *, after: int = 3, reset: bool = False) -> "Fault":
        """Close the socket in mid-answer, or reset it."""
        return cls(kind="cut", after=after, reset=reset)

    @classmethod
    def garbage(cls, *, after: int = 3) -> "Fault":
        """Put a line into the stream that is no JSON; another answer consists of it."""
        return cls(kind="garbage", after=after)

    @classmethod
    def error_event(cls, *, after: int = 3, message: str = "Inference failed", native: bool = False) -> "Fault":
        """End the stream with an error event under status 200; `native` gives it the native form."""
        return cls(kind="error_event", after=after, message=message, native=native)

    @classmethod
    def trickle(cls, *, seconds: float = 0.01) -> "Fault":
        """Send the answer one byte at a time, so many seconds apart."""
        return cls(kind="trickle", seconds=seconds)

    @classmethod
    def truncated(cls, *, after: int = 3) -> "Fault":
        """End the body in the middle of its JSON while the HTTP message is whole."""
        return cls(kind="truncated", after=after)

    @classmethod
    def drop(cls, *, reset: bool = False) -> "Fault":
        """Close the connection before the headers, or reset it."""
        return cls(kind="drop", reset=reset)


class FaultPlan:
    """Says which fault, if any, meets the next request of a model.

    An outage comes first, then what is scripted for the model, then what is scripted for any model, then rates. The
    server's thread takes from the plan while other threads add to it; each step is a single operation on a deque, dict
    or tuple, so no lock is needed.
    """

    def __init__(self) -> None:
        self._scripts: dict[str | None, deque[Fault]] = {}
        self._outages: dict[str, Fault] = {}
        self._rates: tuple[_Rate, ...] = ()

    def script(self, model: str | None, fault: Fault, times: int = 1) -> None:
        """Let the next so many requests to a model meet a fault, after those already scripted; `None` is any model."""
        if times < 1:
            raise ValueError(f"times must be >= 1, got {times}")
        self._scripts.setdefault(model, deque()).extend([fault] * times)

    def outage(self, model: str, on: bool = True, fault: Fault | None = None) -> None:  # noqa: FBT001, FBT002
        """Take a model out of service, with status 503 unless another fault is given, or back into it."""
        if on:
            self._outages[model] = fault or Fault.status(503)
        else:
            self._outages.pop(model, None)

    def rate(self, fault: Fault, rate: float, seed: int = 0, model: str | None = None) -> None:
        """Let a share of requests, from 0 to 1, meet a fault; the same seed gives the same sequence."""
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must be 0 to 1, got {rate}")
        self._rates = (*self._rates, _Rate(fault=fault, rate=rate, model=model, chance=random.Random(seed)))

    def clear(self) -> None:
        """Forget every fault."""
        self._scripts.clear()
        self._outages.clear()
        self._rates = ()

    def next(self, model: str) -> Fault | None:
        """The fault that meets the request arriving now."""
        if model in self._outages:
            return self._outages[model]
        for name in (model, None):
            waiting = self._scripts.get(name)
            if waiting:
                return waiting.popleft()
        for rate in self._rates:
            if rate.model in {None, model} and rate.chance.random() < rate.rate:
                return rate.fault
        return None


@dataclass(frozen=True, kw_only=True)
class _Rate:
    fault: Fault
    rate: float
    model: str | None
    chance: random.Random
