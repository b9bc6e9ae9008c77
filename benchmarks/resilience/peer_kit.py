"""What the scenarios of all peers share."""

import asyncio
import functools
import json
import random
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable

LIMIT = 20.0  # of a scenario
CALL_LIMIT = 15.0
CANCELS_LIMIT = 10.0


def requests(url: str, model: str) -> int:
    """Return how many requests for a model have reached the server."""
    return int(_log(url, model).get("requests", 0))


def waited(url: str, model: str) -> str:
    """Say how many seconds lay between the last two requests for a model."""
    return f"waits {_log(url, model).get('gap', 0.0):.2f} s"


def _log(url: str, model: str) -> dict[str, float]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/log", timeout=5) as answer:
        counts: dict[str, dict[str, float]] = json.loads(answer.read())
    return counts.get(model, {})


def scenario(function: Callable[[str], Awaitable[str]]) -> Callable[[str], str]:
    """Make a coroutine function a scenario that ends in time."""

    @functools.wraps(function)
    def bounded(url: str) -> str:
        async def main() -> str:
            try:
                async with asyncio.timeout(LIMIT):
                    return await function(url)
            except TimeoutError:
                return f"stopped after {LIMIT:g} s"

        return asyncio.run(main())

    return bounded


async def seconds(call: Awaitable[object], limit: float = CALL_LIMIT) -> tuple[float, str]:
    """Return how long a call took and how it ended: "answer", the name of an error, or "" if it had not ended by then."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(limit) as timer:
            await call
    except TimeoutError as error:
        return time.perf_counter() - started, "" if timer.expired() else type(error).__name__
    except Exception as error:  # noqa: BLE001 - each peer has errors of its own
        return time.perf_counter() - started, type(error).__name__
    return time.perf_counter() - started, "answer"


def seconds_blocking(call: Callable[[], object], limit: float = CALL_LIMIT) -> tuple[float, str]:
    """Do the same for a call that blocks, in a thread that is left behind."""
    end: list[str] = []
    started = time.perf_counter()

    def work() -> None:
        try:
            call()
            end.append("answer")
        except Exception as error:  # noqa: BLE001 - each peer has errors of its own
            end.append(type(error).__name__)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(limit)
    return time.perf_counter() - started, end[0] if end else ""


def raised(took: tuple[float, str]) -> str:
    """Say how a call with a time limit ended.

    >>> raised((2.04, "APITimeoutError")), raised((12.0, ""))
    ('raised after 2.0 s', 'not raised in 12 s')
    """
    elapsed, end = took
    if not end:
        return f"not raised in {elapsed:.0f} s"
    return f"raised after {elapsed:.1f} s" if end != "answer" else f"answered after {elapsed:.1f} s"


def both(blocking: tuple[float, str], asynchronous: tuple[float, str]) -> str:
    """Say the same of a blocking and an asynchronous call, in one phrase where it is the same."""
    first, second = raised(blocking), raised(asynchronous)
    return f"chat {first}" if first == second else f"chat, blocking, {first}; async {second}"


def caught(took: tuple[float, str]) -> str:
    """Say whether a silent stream was noticed."""
    return raised(took).replace("raised", "caught")


def end_of_cut(took: tuple[float, str], words: list[str]) -> str:
    """Say what became of a stream that was cut cleanly."""
    return f"returns {''.join(words).strip()!r} as whole" if took[1] == "answer" else f"raises `{took[1]}`"


def end_of_broken(took: tuple[float, str], words: list[str]) -> str:
    """Say what became of a stream with an error in it."""
    text = "".join(words).strip()
    return f"returns {text!r}" if took[1] == "answer" else f"raises after {text!r}, no other policy"


async def after_cancels(call: Callable[[], Awaitable[object]], count: int = 10_000) -> str:
    """Cancel calls at random moments, as many as there is time for, then see how many of a hundred succeed."""
    chance, done, until = random.Random(12), 0, time.perf_counter() + CANCELS_LIMIT

    async def caller() -> None:
        nonlocal done
        while done < count and time.perf_counter() < until:
            done += 1
            task = asyncio.ensure_future(call())
            await asyncio.sleep(chance.uniform(0.0, 0.05))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    await asyncio.gather(*(caller() for _ in range(25)))
    answers = await asyncio.gather(*(call() for _ in range(100)), return_exceptions=True)
    served = sum(not isinstance(answer, BaseException) for answer in answers)
    return f"{served} of 100 after {done:,} cancels"


async def provider_down(url: str, dead: str, call: Callable[[], Awaitable[object]]) -> str:
    """Make five calls to a dead model that has a fallback, as far as they go in the time, and count the dead sends."""
    done, until = 0, time.perf_counter() + CALL_LIMIT
    while done < 5 and (left := until - time.perf_counter()) > 0:
        _, end = await seconds(call(), limit=left)
        if end and end != "answer":
            return f"fails in call {done + 1}: {end}"
        done += bool(end)
    late = "" if done == 5 else f" in {done} calls, stopped after {CALL_LIMIT:g} s"
    return f"{requests(url, dead)} dead sends{late}"
