"""A task that waits for its turn, in whichever loop it runs."""

import asyncio


class Waiter:
    """What stands in a line for a task; whoever lets it go wakes it.

    Attributes:
        batch: Whether it lets others go first.
        granted: What the task awaits.
        is_woken: Whether it was told that its turn has come.
    """

    __slots__ = ("_loop", "batch", "granted", "is_woken")

    def __init__(self, *, batch: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self.batch = batch
        self.granted: asyncio.Future[None] = self._loop.create_future()
        self.is_woken = False

    def try_wake(self) -> bool:
        """Tell the task that its turn has come; False if its loop is closed and will never run it again."""
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 - the public form raises where no loop runs
            self._grant()
        else:
            try:
                self._loop.call_soon_threadsafe(self._grant)
            except RuntimeError:
                return False
        self.is_woken = True
        return True

    def _grant(self) -> None:
        # A task that was cancelled meanwhile passes its turn on by itself.
        if not self.granted.done():
            self.granted.set_result(None)
