"""The rows of the table: what happens, and what a client should make of it."""

from dataclasses import dataclass
from typing import Literal

Peer = Literal["openai", "litellm", "pydantic-ai"]
PEERS: tuple[Peer, ...] = ("openai", "litellm", "pydantic-ai")


@dataclass(frozen=True)
class Row:
    """One scenario.

    Args:
        key: Its name among the programs.
        title: What happens.
        goal: What a client should make of it.
    """

    key: str
    title: str
    goal: str


ROWS = (
    Row("retry-after", "429 with `Retry-After: 2`", "waits at least 2 s, inside the deadline"),
    Row("trickle", "body of one byte per half second, timeout 2 s", "raised by 2.1 s"),
    Row("hung-chain", "three hung models in a fallback chain, timeout 2 s", "raised by 2.1 s"),
    Row("cut-stream", "clean end of a stream without finish reason", "`StreamInterrupted` with the partial"),
    Row("broken-stream", "error after the first tokens of a stream", "no delta twice, the end that its policy says"),
    Row("provider-down", "provider down, fallback set, 5 calls", "at most 5 dead sends, then none"),
    Row("one-probe", "breaker's time is up, 100 callers at once", "exactly 1 probe"),
    Row("worst-case", "always 500, `attempts=3`, one fallback", "at most 6 requests, foretold"),
    Row("outage", "total outage, 100 calls/s for 120 s", "at most 1.05 sends per call; 0.05 with the breaker"),
    Row("recovery", "the 90 s after it", "first success within 10 s, 95 % of the calls on average"),
    Row(
        "capacity",
        "1,000 callers on 200 slots, cut to 20, and back",
        "90 % of capacity, under 2 % 429s, none past its deadline",
    ),
    Row("cancels", "10,000 random cancels", "nothing held, then 100 of 100 calls"),
    Row("silent-stream", "stall behind keep-alive pings, idle limit 1 s", "caught within 2 s"),
    Row("lost-image", "image POST, connection lost after the body left", "exactly 1 request"),
)
