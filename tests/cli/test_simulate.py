import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.request

import pytest

from resilient_ai.cli.failures import WrongUseError
from resilient_ai.cli.simulate import add_faults, serve
from resilient_ai.simulator import Simulator


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_simulator_runs_until_it_is_stopped(offline, number):
    """It says where it listens, answers, and ends well when it is told to."""
    process = offline.start("simulate", "--port", "0", "--json", "--faults-rate", "0.25")
    address = json.loads(process.stdout.readline())
    greeting = b"".join(process.stderr.readline() for _ in range(3)).decode()
    with urllib.request.urlopen(f"{address['base_url']}/openai/models") as answer:  # noqa: S310 - our own server
        assert answer.status == 200
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert f"export DEEPINFRA_API_KEY=anything RESILIENT_AI_BASE_URL={address['base_url']}" in greeting
    assert "25% of requests meet a fault" in greeting
    assert errors.decode() == "stopped after 0 requests and a bill of $0\n"


def test_without_json_standard_output_stays_empty(offline):
    """What people read goes to standard error."""
    process = offline.start("simulate", "--port", "0")
    assert b"simulated DeepInfra on http://127.0.0.1:" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[0] == b""


@pytest.mark.parametrize("json_too", [True, False])
def test_signals_are_given_back(offline, json_too):
    """The command takes the signals that end it only while it runs."""
    before = signal.getsignal(signal.SIGINT)

    def interrupt():
        while signal.getsignal(signal.SIGINT) is before:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    helper.start()
    result = offline.run("simulate", "--port", "0", "--limit", "3", *(["--json"] if json_too else []))
    helper.join()
    assert (result.exit_code, signal.getsignal(signal.SIGINT)) == (0, before)
    assert result.stdout == "" if not json_too else json.loads(result.stdout)["base_url"].endswith("/v1")
    assert result.stderr.endswith("stopped after 0 requests and a bill of $0\n")


def test_taken_address_in_this_process(offline):
    """The complaint names the address."""
    result = offline.run("simulate", "--host", "192.0.2.1")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: 192.0.2.1:8765 cannot be listened on: Cannot assign requested address\n",
    )


def test_taken_port_is_a_wrong_use(offline):
    """An address that somebody else listens on is one line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = offline.start("simulate", "--port", port)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors.decode()) == (
        2,
        f"error: 127.0.0.1:{port} cannot be listened on: Address already in use\n",
    )


def test_missing_extra_is_named(monkeypatch):
    """Without the simulator's packages the extra is named."""
    for name in [name for name in sys.modules if name.startswith("resilient_ai.simulator")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    with pytest.raises(WrongUseError, match=r"pip install 'resilient-ai\[simulator\]'"):
        serve()


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_faults_come_as_often_as_asked(rate):
    """The share is the share of all faults together, each kind as often as the others."""
    simulator = Simulator()
    add_faults(simulator, rate, seed=7)
    met = [simulator.faults.next("m") for _ in range(4000)]
    kinds = [fault for fault in met if fault is not None]
    assert len(kinds) / len(met) == pytest.approx(rate, abs=0.03)
    for kind in set(kinds):
        assert kinds.count(kind) / len(met) == pytest.approx(rate / 5, abs=0.03)
