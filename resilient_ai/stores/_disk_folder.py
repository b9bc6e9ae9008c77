"""The folder of a `DiskStore`: who may see it, and what becomes of it when its database breaks."""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from resilient_ai.stores._private import private_directory


def prepare(folder: Path) -> None:
    """Create `folder` and the one it lies in for this user alone, or check those that exist, and remove value files.

    Raises:
        OSError: If it cannot be created, or is not ours alone.
    """
    private_directory(folder.parent)
    private_directory(folder)
    folder.chmod(0o700)
    _sweep(folder)


def inode(folder: Path) -> int:
    """Return the number of the database in `folder`, 0 where there is none."""
    try:
        return (folder / "cache.db").stat().st_ino
    except OSError:
        return 0


def set_aside(folder: Path) -> None:
    """Give `folder` another name, so that a new one can be begun; of those that were broken one is kept."""
    for older in folder.parent.glob(f"{folder.name}.corrupt-*"):
        shutil.rmtree(older, ignore_errors=True)
    with suppress(OSError):
        folder.rename(folder.with_name(f"{folder.name}.corrupt-{time.time_ns()}"))


def _sweep(folder: Path) -> None:
    # This store puts nothing into files, so a value file is the remains of something else. Links are not followed.
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".val"):
                Path(place, name).unlink(missing_ok=True)
