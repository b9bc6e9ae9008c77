"""A permit of the fleet, beside the one of this process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from resilient_ai.core.call import Call, new_id
from resilient_ai.core.errors import LimitReached
from resilient_ai.core.log import Log
from resilient_ai.core.protocols import Fleet

_PAUSE_SHORTEST = 0.02
_PAUSE_LONGEST = 0.25
_PAUSE_ALONE = 0.05
# How often permits are taken to come back where that is not known, in seconds.
_COMES_BACK = 0.04

_log = Log()


@dataclass(slots=True)
class FleetPermit:
    """One permit of a limit that the processes of a fleet share.

    From the first time it is asked for it may be held, whatever the answer was and even if none came; so whoever called
    `acquire` calls `release` once, however the call ends.
    """

    fleet: Fleet
    name: str
    limit: int
    holder: str = field(default_factory=new_id)
    is_admitted: bool = False

    async def acquire(
        self, call: Call[Any], try_admit: Callable[[bool], bool], mean_held: Callable[[], float | None]
    ) -> bool:
        """Ask until the fleet gives the permit, or cannot be asked; return whether that took more than one question.

        `try_admit` has the last word. It is told whether this process must decide alone, as the fleet cannot be asked.
        `mean_held` tells the seconds for which a permit is held, None where that is not known.

        Who is told that n permits must come back first asks again after about half the time that takes, `n * mean held / limit`,
        but between 0.02 and 0.25 s, with up to half of it off by chance; who must decide alone, after `uniform(0.05, 0.25)`.
        The deadline of the call bounds it from outside.

        Raises:
            LimitReached: If by the first place in the line the wait is longer than the call has left.
        """
        asked, placed = 0, False
        while True:
            missing = await self.fleet.acquire(self.name, limit=self.limit, holder=self.holder)
            asked += 1
            if not missing and try_admit(missing is None):
                self.is_admitted = True
                if missing is None:
                    self.fleet.hold(self.name, holder=self.holder)
                return asked > 1
            mean, pause = mean_held(), _PAUSE_ALONE + (_PAUSE_LONGEST - _PAUSE_ALONE) * call.clock.random()
            if missing:
                if mean is not None and not placed:
                    self._refuse_if_too_long(call, (missing - 1) * mean / self.limit)
                placed = True
                turn = missing * (_COMES_BACK if mean is None else mean / self.limit)
                pause = min(_PAUSE_LONGEST, max(_PAUSE_SHORTEST, turn / 2)) * (1 - call.clock.random() / 2)
            await call.clock.sleep(pause)

    def release(self) -> None:
        """Give the permit back, if it is held, or leave the line."""
        try:
            self.fleet.release(self.name, holder=self.holder)
        except Exception as error:  # noqa: BLE001 - what a fleet does wrong must not keep the call from its answer
            _log.warning("the fleet's release raised %s", type(error).__name__)

    def _refuse_if_too_long(self, call: Call[Any], wait: float) -> None:
        remaining = call.remaining()
        if remaining is not None and wait > remaining:
            reason = (
                f"a permit for {call.model!r}, which the fleet shares, takes about {wait:.1f} s, "
                f"and the call has {remaining:.1f} s left"
            )
            raise LimitReached(reason, limit=self.limit, retry_after=wait, limiter="concurrency")
