"""A permit of the fleet, beside the one of this process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from resilient_ai.core.call import Call, new_id
from resilient_ai.core.protocols import Fleet

_WAIT_SHORTEST = 0.05
_WAIT_LONGEST = 0.25


@dataclass(slots=True)
class FleetPermit:
    """One permit of a limit that the processes of a fleet share.

    From the first time it is asked for it may be held, whatever the answer was and even if none came; so whoever called
    `acquire` calls `release` once, however the call ends.
    """

    fleet: Fleet
    name: str
    holder: str = field(default_factory=new_id)
    is_admitted: bool = False

    async def acquire(self, call: Call[Any], limit: int, try_admit: Callable[[bool], bool]) -> bool:
        """Ask until the fleet gives the permit, or cannot be asked; return whether that took more than one question.

        `try_admit` has the last word. It is told whether this process must decide alone, as the fleet cannot be asked. Between
        two questions pass `uniform(0.05, 0.25)` seconds. The deadline of the call bounds it from outside.
        """
        has_waited = False
        while True:
            answer = await self.fleet.acquire(self.name, limit=limit, holder=self.holder)
            if answer is not False and try_admit(answer is None):
                self.is_admitted = True
                return has_waited
            has_waited = True
            await call.clock.sleep(_WAIT_SHORTEST + (_WAIT_LONGEST - _WAIT_SHORTEST) * call.clock.random())

    def release(self) -> None:
        """Give the permit back, if it is held."""
        self.fleet.release(self.name, holder=self.holder)
