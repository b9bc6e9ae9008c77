"""Workers that share a store, and somebody who kills them at random moments."""

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from signal import SIGKILL

from benchmarks.cache_kills.audit import audit
from benchmarks.cache_kills.clients import Place
from benchmarks.cache_kills.crew import Crew, Told
from benchmarks.cache_kills.questions import Order, names_of, operation_of

WORKERS = 4
LEASE_TIME = 1.0
_RATE = 20.0  # questions a second that become new ones
_SHORTEST, _LONGEST = 0.005, 0.15  # seconds between two kills
_PATIENCE = (
    15.0  # seconds for any wait, on a machine that has much else to do; a lease that nobody takes over lasts for ever
)
_LEASED = ("q", "t1")  # names of what is asked for in one way only, so that a lease covers it


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What became of a store and of those that shared it.

    Args:
        kills: Workers that were killed.
        calls: Calls that were answered.
        failed: What calls failed of.
        wrong: Answers and entries with a wrong value.
        corrupt: Entries that a later reader refused, or that it could not read.
        lost: Entries that some worker found, and that are not there in the end.
        repeated: How often something was sent again, for whatever reason.
        unexcused: Questions and lists that a lease covers and that were sent again although nobody was killed who had sent them.
        overlapping: The same of texts in lists that overlap; two such lists that are asked for at once are both sent.
        slowest: Seconds of the slowest call, which waited for the lease of somebody who was killed.
        afterwards: Seconds a new worker took, after the last kill, for everything that was being asked for then.
        again: Requests for the same work by one more new worker.
        faults: Times that a store took too long or dropped something, as far as workers lived to tell. Each is a reason to send
            something again.
    """

    kills: int
    calls: int
    failed: list[str]
    wrong: list[str]
    corrupt: int
    lost: list[str]
    repeated: int
    unexcused: list[str]
    overlapping: int
    slowest: float
    afterwards: float
    again: int
    faults: int

    @property
    def wait(self) -> float:
        """Seconds of the longest wait after a kill."""
        return max(self.slowest, self.afterwards)

    def troubles(self) -> list[str]:
        """Return what must not be, in words."""
        found = [f"failed: {each}" for each in self.failed]
        found += [f"wrong: {each}" for each in self.wrong]
        found += [f"lost: {each}" for each in self.lost]
        if len(self.unexcused) > self.faults:
            found += [f"sent again for no reason: {each}" for each in self.unexcused]
        if self.corrupt:
            found.append(f"{self.corrupt} entries are damaged or cannot be read")
        if self.again:
            found.append(f"{self.again} requests for what had just been asked for")
        if self.wait > _PATIENCE:
            found.append(f"after a kill, somebody waited for {self.wait:.1f} s")
        return found


def kill_at_random(place: Place, url: str, *, kills: int, seed: int, clients: int = 1) -> Findings:
    """Let workers share the store at `place` and the service at `url`, kill some, and look at what is left.

    Args:
        place: Where the store is.
        url: The service.
        kills: How many to kill.
        seed: Of the moments and of what is asked.
        clients: How many each worker has, each with a store of its own.
    """
    chance = random.Random(seed)
    begun = time.monotonic()
    serial = iter(range(10**9))
    killed: set[int] = set()
    deaths: list[str] = []
    with Crew() as crew:

        def start() -> int:
            load = {"seed": f"{seed} {next(serial)}", "begun": begun, "rate": _RATE}
            return crew.start({"place": place, "url": url, "lease_time": LEASE_TIME, "load": load, "clients": clients})

        steady = start()  # lives on, and waits for whatever those who are killed leave behind
        workers = [start() for _ in range(WORKERS)]
        crew.until(lambda: len({line["id"] for line in crew.told if "did" in line}) == WORKERS + 1)
        for _ in range(kills):
            time.sleep(chance.uniform(_SHORTEST, _LONGEST))
            victim = workers.pop(chance.randrange(WORKERS))
            code = crew.kill(victim)
            deaths += [] if code == -SIGKILL else [f"a worker had died of {code} before it was killed"]
            killed.add(victim)
            workers.append(start())
        under_way = [line["sent"] for line in crew.lines("sent", killed)[-10:]]
        work = {"place": place, "url": url, "lease_time": LEASE_TIME, "orders": list(_orders(under_way))}
        started = time.monotonic()
        crew.run([work])
        afterwards = time.monotonic() - started
        codes = [crew.stop(worker) for worker in (steady, *workers)]
        deaths += [f"a worker ended with {code}" for code in codes if code]
        again = len([line for line in crew.run([work]) if "sent" in line])
        told = crew.told
    return _findings(place, url, told, killed, deaths, afterwards=afterwards, again=again)


def _orders(sends: Iterable[list[str]]) -> Iterator[Order]:
    for names in sends:
        kind = "chat" if names[0].startswith("q") else "embed"
        yield kind, [int(name[1:]) for name in names]


def _findings(
    place: Place, url: str, told: list[Told], killed: set[int], deaths: list[str], *, afterwards: float, again: int
) -> Findings:
    did = [line for line in told if "did" in line]
    sent = Counter(name for line in told for name in line.get("sent", ()))
    excused = Counter(name for line in told if line["id"] in killed for name in line.get("sent", ()))
    repeats = {name: count - 1 for name, count in sent.items() if count > 1}
    found = audit(place, url, sent)
    # What a worker sent itself it may find before it is written, and take along when it dies.
    own = {(line["id"], name) for line in told for name in line.get("sent", ())}
    hits = {name for line in did if line["cache"] == "hit" for name in _names(line) if (line["id"], name) not in own}
    return Findings(
        kills=len(killed),
        calls=len(did),
        failed=[line["failed"] for line in told if "failed" in line] + deaths,
        wrong=[f"{line['did']} {line['numbers']}" for line in did if not line["right"]] + found.wrong,
        corrupt=found.refused + (not found.complete),
        lost=sorted(hits - found.names),
        repeated=sum(repeats.values()),
        unexcused=sorted(
            {_asked_as(name) for name, times in repeats.items() if name.startswith(_LEASED) and times > excused[name]}
        ),
        overlapping=sum(count for name, count in repeats.items() if not name.startswith(_LEASED)),
        slowest=max(line["took"] for line in did),
        afterwards=afterwards,
        again=again,
        faults=sum({line["id"]: line["faults"] for line in told if "faults" in line}.values()),
    )


def _asked_as(name: str) -> str:
    """Return a name of what was asked for as a whole: texts that a lease covers come in tens."""
    return name if name.startswith("q") else f"the list from {name[:-1]}0 on"


def _names(line: Told) -> list[str]:
    return names_of(operation_of((line["did"], line["numbers"])))
