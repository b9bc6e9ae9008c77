"""What an installed wheel must offer, with nothing but the base install around it."""

import importlib.metadata
import json
import pathlib
import subprocess
import sys

import pytest

import resilient_ai
from resilient_ai.testing import ScriptedProvider, run

PROBE = """
import json, socket, sys, time
def refuse(*_args, **_kwargs):
    raise AssertionError("the network was touched")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
started = time.perf_counter()
{statement}
elapsed = time.perf_counter() - started
import logging
print(json.dumps({{"seconds": elapsed, "megabytes": int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024,
    "modules": sorted(sys.modules), "handlers": len(logging.getLogger().handlers)}}))
"""


def probe(statement):
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_every_public_name_is_there():
    """Each name of `__all__` can be imported, and the list is sorted and free of doubles."""
    assert all(getattr(resilient_ai, name) is not None for name in resilient_ai.__all__)
    assert sorted(set(resilient_ai.__all__)) == sorted(resilient_ai.__all__)
    assert set(resilient_ai.__all__) <= set(dir(resilient_ai))


def test_a_wrong_name_is_an_attribute_error():
    """A name that does not exist is refused as any module does it."""
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        resilient_ai.Nothing  # noqa: B018


def test_importing_touches_no_network_and_configures_nothing():
    """Importing the package and its client opens no connection and installs no log handler."""
    found = probe("from resilient_ai import AsyncClient, Client, Chat")

    assert found["handlers"] == 0
    assert "resilient_ai.client" in found["modules"]
    assert "opentelemetry.sdk.trace" not in found["modules"]


def test_importing_the_package_is_small():
    """The package itself needs less than 50 MB."""
    assert probe("import resilient_ai")["megabytes"] < 50


def test_types_are_shipped():
    """The wheel says that it is typed and carries the catalogue's data."""
    home = pathlib.Path(resilient_ai.__file__).parent

    assert (home / "py.typed").exists()
    assert (home / "deepinfra" / "catalogue" / "models.json").exists()


def test_version_is_the_distribution_s():
    """`__version__` is what was installed."""
    assert resilient_ai.__version__ == importlib.metadata.version("resilient-ai")


def test_a_pipeline_answers():
    """A pipeline of one's own works on the base install."""
    from resilient_ai.middleware import Retry

    pipeline = resilient_ai.Pipeline(ScriptedProvider(), [Retry(attempts=2)])

    assert run(pipeline.send(resilient_ai.Chat(model="m", messages="hi"))).text == "Hello."


def test_the_stack_cannot_be_imported_under_another_name():
    """The link at the top of the tree is for people: importing it as `middleware` says what to import instead."""
    home = pathlib.Path(resilient_ai.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", "import middleware"], cwd=home, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "this package is `resilient_ai.middleware`" in done.stderr


def test_the_command_says_which_extra_it_needs():
    """Without its extra the command explains itself in one line."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['typer'] = None; from resilient_ai.cli import main; main()"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "resilient-ai[cli]" in done.stderr
    assert "Traceback" not in done.stderr
