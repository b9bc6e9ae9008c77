"""The command line, `resilient-ai`; typer and rich are imported here and nowhere else."""

import sys
from typing import NoReturn

_NEEDED = {"rich", "typer"}


def main() -> NoReturn:
    """Run the command line and exit.

    The exit code is 0 if all went well, 1 if the service or a policy failed, 2 if what was asked for, given or configured is
    wrong, 130 after Ctrl-C, and 141 if whoever reads the output has left.
    """
    try:
        from resilient_ai.cli.app import run  # noqa: PLC0415 - the packages it needs are optional
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _NEEDED:
            raise
        sys.stderr.write(f"error: {missing} is missing; install it with: pip install 'resilient-ai[cli]'\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    run()


__all__ = ["main"]
