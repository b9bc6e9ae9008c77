"""What code of others may raise where it must not become a fault of the call."""

from asyncio import CancelledError

# A true cancellation comes where something is awaited. One that a plain function raises is a fault like any other, but would
# end the call all the same, as it is no `Exception`.
FAULTS = (Exception, CancelledError)
