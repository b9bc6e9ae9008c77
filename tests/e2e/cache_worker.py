"""Clients in processes of their own: `python -m tests.e2e.cache_worker` obeys lines of JSON and answers in lines of JSON.

It forks each worker, so that one is there within milliseconds, and reaps it, so that no other process is ever hit by its id.

{"start": job} is answered by {"started": id}; {"kill": id}, {"stop": id} and {"wait": id} by {"ended": id, "by": exit code};
{"open": true} lets those go that wait at the gate. Workers say what they send, what came of it, and that they are done.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
import traceback

# Imported now, so that no fork need import it, which would take much longer than all that it does.
import redis.asyncio  # noqa: F401

import resilient_ai.deepinfra.aiohttp_transport
import resilient_ai.stores._disk_rows
import resilient_ai.stores._safe_disk  # noqa: F401
from benchmarks.cache_kills.clients import Witness, client_of, store_of
from benchmarks.cache_kills.questions import digest_of, is_right, operation_of
from resilient_ai.core.streams import StreamResult

_STOP = 30.0  # seconds for a worker to come to its end
_LIMIT = 180.0  # seconds for all of its work
_TASKS = 3
_LINE = 4096  # bytes that a pipe takes as one, whoever else writes


class Parent:
    """Starts workers, ends them, and opens the gate they wait at."""

    def __init__(self):
        self.children = set()
        self.gate = os.pipe()

    def obey(self, order):
        """Carry out an order and return what there is to tell."""
        match order:
            case {"start": job}:
                return {"started": self.start(job)}
            case {"kill": child}:
                os.kill(child, signal.SIGKILL)
                return self.end(child)
            case {"wait": child}:
                return self.end(child)
            case {"stop": child}:
                os.kill(child, signal.SIGTERM)
                return self.end(child)
        os.close(self.gate[1])
        os.close(self.gate[0])
        self.gate = os.pipe()
        return {"opened": True}

    def start(self, job):
        child = os.fork()
        if child:
            self.children.add(child)
            return child
        try:
            os.close(self.gate[1])
            os.close(0)
            asyncio.run(Worker(job, self.gate[0]).run())
        except BaseException:  # noqa: BLE001 - a fork must not come back into the parent's code
            say({"failed": traceback.format_exc()[-2000:]})
            os._exit(1)
        os._exit(0)

    def end(self, child):
        """Wait for the end of a child, and help where it does not come."""
        give_up = time.monotonic() + _STOP
        while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > give_up:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.001)
        self.children.discard(child)
        code = os.waitstatus_to_exitcode(found[1])
        return {"ended": child, "by": code}


class Worker:
    """A process that asks what it is told to ask.

    Args:
        job: `place` and `url`; `orders` or a `load`. It may hold `clients`, each with a store of its own, `timeout` of the
            stores, `lease_time`, whether to wait at the `gate`, and whether to ask `in_turn`.
        gate: Is readable once it is open.
    """

    def __init__(self, job, gate):
        self.job, self.gate = job, gate
        self.stores = [store_of(job["place"], job.get("timeout", 2.0)) for _ in range(job.get("clients", 1))]
        self.stopped = asyncio.Event()
        self.parent = os.getppid()

    async def run(self):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.stopped.set)
        witness = Witness(lambda names: say({"sent": names}))
        options = {"lease_time": self.job.get("lease_time", 30.0), "witness": witness}
        async with asyncio.timeout(_LIMIT), contextlib.AsyncExitStack() as stack:
            clients = [client_of(store, self.job["url"], **options) for store in self.stores]
            for ai in clients:
                await stack.enter_async_context(ai)
            say({"ready": True})
            if self.job.get("gate"):
                await opened(self.gate)
            await self.work(clients)
        say({"done": True, "faults": self.faults()})

    async def work(self, clients):
        if "load" in self.job:
            await asyncio.gather(*(self.load(clients[task % len(clients)], task) for task in range(_TASKS)))
        elif self.job.get("in_turn"):
            for order in self.job["orders"]:
                await self.ask(clients[0], *order)
        else:
            await asyncio.gather(*(self.ask(clients[0], *order) for order in self.job["orders"]))

    async def load(self, ai, task):
        """Ask at random among what is asked at this moment, until somebody says stop."""
        chance = random.Random(f"{self.job['load']['seed']} {task}")
        while not self.stopped.is_set() and os.getppid() == self.parent:
            await self.ask(ai, *next_order(chance, self.job["load"]))

    def faults(self):
        return sum(store.faults + store.dropped for store in self.stores)

    async def ask(self, ai, kind, numbers):
        """Ask, and tell what came of it."""
        started = time.monotonic()
        try:
            result = await ai.send(operation_of((kind, numbers)))
            if isinstance(result, StreamResult):
                async with result as stream:
                    result = await stream.result()
        except Exception as error:  # noqa: BLE001 - it is told, and makes the test fail
            say({"failed": f"{kind} {numbers[:3]}: {error!r}"[:1000]})
            return
        say(
            {
                "did": kind,
                "numbers": numbers,
                "took": time.monotonic() - started,
                "right": is_right((kind, numbers), result),
                "digest": digest_of(result),
                "cache": result.cache,
                "faults": self.faults(),
            }
        )


def next_order(chance, load):
    """Return something that all workers may be asking for just now: what that is moves on with the time."""
    now = int((time.monotonic() - load["begun"]) * load["rate"])
    match chance.randrange(4):
        case 0:
            return "chat", [now + chance.randrange(4)]
        case 1:
            return "stream", [now + chance.randrange(4)]
        case 2:  # a list that others ask for as it is
            first = 1_000_000 + 10 * (now + chance.randrange(4))
            return "embed", list(range(first, first + 10))
    texts = range(2_000_000 + 10 * now, 2_000_000 + 10 * now + 40)
    return "embed", chance.sample(texts, chance.randint(5, 20))


async def opened(gate):
    """Wait until the other end is closed."""
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(gate, ready.set)
    await ready.wait()
    loop.remove_reader(gate)


def say(line):
    """Write a line as one piece."""
    data = json.dumps({"id": os.getpid(), **line}).encode() + b"\n"
    assert len(data) <= _LINE, data
    os.write(1, data)


def main():
    parent = Parent()
    say({"ready": True})
    for line in sys.stdin:
        say(parent.obey(json.loads(line)))
    for child in parent.children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()
