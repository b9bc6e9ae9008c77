"""A gate that one call at a time passes, in the order they came, from any loop and thread."""

from collections import OrderedDict

from resilient_ai.middleware._machines.turns import Turns
from resilient_ai.middleware._waiter import Waiter


class Gate:
    """Lets one call in; the next one enters when it leaves. A call that is cancelled gives up its place.

    Args:
        turns: Guards the gate along with whatever else it guards.
    """

    __slots__ = ("_line", "_taken", "_turns")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._taken = False
        self._line: OrderedDict[Waiter, None] = OrderedDict()

    async def enter(self) -> bool:
        """Wait for the way to be free; return whether it was not."""
        with self._turns:
            if not self._taken:
                self._taken = True
                return False
            waiter = Waiter()
            self._line[waiter] = None
        try:
            await waiter.granted
        except BaseException:
            self._turns.post(lambda: self._give_up(waiter))
            raise
        return True

    def leave(self) -> None:
        """Let the next one in; may be called while the garbage collector runs."""
        self._turns.post(self._let_in)

    def _let_in(self) -> None:
        while self._line:
            waiter, _ = self._line.popitem(last=False)
            if waiter.try_wake():
                return
        self._taken = False

    def _give_up(self, waiter: Waiter) -> None:
        if waiter in self._line:
            del self._line[waiter]
        elif waiter.is_woken:
            self._let_in()
