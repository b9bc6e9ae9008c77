"""`resilient-ai simulate`: DeepInfra's wire on this machine, with faults on demand."""

import signal
import threading
from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resilient_ai.cli import terminal
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.cli.options import Json

if TYPE_CHECKING:
    from resilient_ai.simulator import Simulator


def simulate(
    *,
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0 takes a free one.")] = 8765,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Requests in flight per model before 429.")] = 200,
    faults_rate: Annotated[
        float, typer.Option("--faults-rate", min=0, max=1, help="Share of requests that meet a fault.")
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Makes the sequence of faults repeatable.")] = 0,
    json: Json = False,
) -> None:
    """Run a simulated DeepInfra until Ctrl-C.

    For tests and trials that shall cost nothing.
    """
    stop = threading.Event()

    with _told_to(stop), _listening(serve(host=host, port=port, limit=limit), f"{host}:{port}") as simulator:
        add_faults(simulator, faults_rate, seed)
        if json:
            terminal.write_json({"url": simulator.url, "base_url": simulator.base_url})
        _introduce(simulator, faults_rate)
        stop.wait()
        stats = simulator.stats()
    terminal.say(f"stopped after {stats.requests:,} requests and a bill of {terminal.usd(stats.bill)}")


@contextmanager
def _told_to(stop: threading.Event) -> Generator[None]:
    """Let the signals that end a program set `stop`: for this one, ending so is no error."""

    def end(_number: int, _frame: object) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _listening(server: "AbstractContextManager[Simulator]", address: str) -> "Generator[Simulator]":
    with ExitStack() as stack:
        try:
            simulator = stack.enter_context(server)
        except OSError as error:
            raise WrongUseError(f"{address} cannot be listened on: {error.strerror}") from None
        yield simulator


def serve(**options: Any) -> "AbstractContextManager[Simulator]":
    """Return the simulator, or complain about what is missing for it.

    Raises:
        WrongUseError: If the packages of the extra `simulator` are not installed.
    """
    try:
        from resilient_ai.simulator import serve as start  # noqa: PLC0415 - an optional part
    except ModuleNotFoundError as error:
        raise WrongUseError(
            f"{(error.name or '').partition('.')[0]} is missing; install it with: pip install 'resilient-ai[simulator]'"
        ) from None
    return start(**options)


def add_faults(simulator: "Simulator", rate: float, seed: int) -> None:
    """Let a share of requests meet one of five faults."""
    from resilient_ai.simulator import Fault  # noqa: PLC0415 - an optional part

    faults = [Fault.status(503), Fault.status(429, retry_after=1), Fault.status(500), Fault.drop(), Fault.delay(2)]
    share = rate / len(faults)
    for number, fault in enumerate(faults):
        # Each is asked for only where those before it did not happen, and all shall be equally frequent.
        simulator.faults.rate(fault, min(1.0, share / (1 - number * share)), seed=seed + number)


def _introduce(simulator: "Simulator", rate: float) -> None:
    faults = f", {rate:.0%} of requests meet a fault" if rate else ""
    terminal.say(f"simulated DeepInfra on {simulator.url}{faults}; Ctrl-C stops it", "bold")
    terminal.say(f"  export DEEPINFRA_API_KEY=anything RESILIENT_AI_BASE_URL={simulator.base_url}")
    terminal.say('  resilient-ai chat "What is the capital of France?"')
