"""Reading an export into a cache."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resilient_ai.cli import terminal
from resilient_ai.cli._cache_dump import DamagedCacheFileError, load
from resilient_ai.cli._cache_store import healthy

if TYPE_CHECKING:
    from resilient_ai.cli._cache_store import Store

_AT_ONCE = 256
_BYTES_AT_ONCE = 16 << 20
_NO_KEY = "f" * 96


@dataclass(slots=True)
class Filled:
    """What was done with a file.

    Args:
        entries: Entries that are in the cache now.
        skipped: Lines that are no entries.
        damage: Why the file could not be read to its end, None where it was.
    """

    entries: int = 0
    skipped: int = 0
    damage: DamagedCacheFileError | None = None


async def fill(store: "Store", file: Path) -> Filled:
    """Put the entries of an export into a store; of a damaged one those that stand before the damage.

    Raises:
        NotACacheFileError: If the file is no export; nothing was done.
        CacheUnreachableError: If the store has not taken everything.
        OSError: If the file cannot be read.
    """
    done = Filled()
    part: dict[str, bytes] = {}
    size = 0
    with terminal.err().status("importing") as status:
        try:
            for entry in load(file):
                if entry is None:
                    done.skipped += 1
                    continue
                part[entry[0]] = entry[1]
                size += len(entry[1])
                if len(part) >= _AT_ONCE or size >= _BYTES_AT_ONCE:
                    done.entries += await _keep(store, part)
                    part, size = {}, 0
                    status.update(f"importing, {done.entries:,} so far")
        except DamagedCacheFileError as error:
            done.damage = error
        done.entries += await _keep(store, part)
        await healthy(store)
    return done


async def _keep(store: "Store", entries: dict[str, bytes]) -> int:
    await store.set_many(entries)
    await store.delete_many(
        [_NO_KEY]
    )  # which waits until everything is written, so that nothing piles up and is dropped
    if getattr(store, "faults", 0):
        await healthy(store)  # says what is wrong
    return len(entries)
