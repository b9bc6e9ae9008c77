import subprocess
import sys
import warnings

import pytest
import typer

from resilient_ai._version import __version__
from resilient_ai.cli import app as commands
from resilient_ai.deepinfra.catalogue import RetiredModelWarning

CHAT = sys.modules["resilient_ai.cli.chat"]


def test_every_command_has_help(offline):
    """Each command says what it does, without the package's heavy parts."""
    result = offline.run("--help")
    assert result.exit_code == 0
    for name in ("chat", "embed", "image", "models", "costs", "cache", "doctor", "simulate", "demo"):
        assert f"│ {name} " in result.stdout
        assert offline.run(name, "--help").exit_code == 0


def test_version_is_told(offline):
    """--version is one line."""
    assert offline.run("--version").stdout == f"resilient-ai {__version__}\n"


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["sing"], "error: No such command 'sing'; see `resilient-ai --help`\n"),
        (["--loud"], "error: No such option: --loud; see `resilient-ai --help`\n"),
        (["models", "--min-context", "x"], "see `resilient-ai models --help`\n"),
        (["doctor", "--base-url"], "requires an argument; see `resilient-ai doctor --help`\n"),
        (["cache", "clear", "--tenant"], "requires an argument; see `resilient-ai cache clear --help`\n"),
    ],
)
def test_wrong_arguments_are_one_line(offline, args, sentence):
    """What cannot be understood is complained about in one line with the way to help."""
    process = offline.start(*args)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 2
    assert errors.decode().endswith(sentence)
    assert (output, errors.count(b"\n")) == (b"", 1)


def test_fault_of_the_program_is_not_hidden(offline, monkeypatch):
    """An error nobody foresaw keeps its traceback, for the report it deserves."""

    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(CHAT, "with_client", broken)
    result = offline.runner.invoke(commands.app, ["chat", "hi"], env=offline.env)
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, typer.Abort])
def test_interruption_is_130(offline, monkeypatch, interruption):
    """Ctrl-C and a declined question end with one word and 130."""

    def interrupted(*_, **__):
        raise interruption

    monkeypatch.setattr(CHAT, "with_client", interrupted)
    result = offline.run("chat", "hi")
    assert (result.exit_code, result.stderr) == (130, "cancelled\n")


def test_warning_is_one_line(shell):
    """A retired model is warned about in one line without a file name; where warnings are errors they stay lines here."""
    result = shell.run("chat", "-m", "01-ai/Yi-34B-Chat", "hi")
    assert result.stderr.splitlines()[0].startswith("warning: model '01-ai/Yi-34B-Chat' is no longer listed")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("as before", RetiredModelWarning, stacklevel=1)
    assert len(caught) == 1


def test_no_command_shows_the_help(offline):
    """Somebody who types the name alone wants to know what there is."""
    result = offline.run()
    assert (result.exit_code, result.stderr, "Usage: resilient-ai" in result.stdout) == (2, "", True)


def test_closed_pipe_is_141(offline, monkeypatch):
    """A reader that left is no failure of the service."""

    def left(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr(CHAT, "with_client", left)
    result = offline.run("chat", "hi")
    assert (result.exit_code, result.stderr) == (141, "")


def run_python(offline, code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=offline.environment(), capture_output=True, check=False)


@pytest.mark.parametrize("command", ["--help", "models"])
def test_light_commands_load_no_client(offline, command):
    """Help and the list of models are quick: they load neither the client nor an HTTP library."""
    code = (
        "import sys, atexit; from resilient_ai.cli import main\n"
        "heavy = {'aiohttp', 'httpx', 'structlog', 'opentelemetry', 'diskcache', 'resilient_ai.client'}\n"
        "atexit.register(lambda: sys.stderr.write('LOADED ' + str(sorted(heavy & set(sys.modules)))))\n"
        f"sys.argv = ['resilient-ai', {command!r}]; main()"
    )
    done = run_python(offline, code)
    assert (done.returncode, done.stderr.decode().rpartition("LOADED ")[2]) == (0, "[]")


def test_package_itself_needs_neither_typer_nor_rich(offline):
    """typer and rich are loaded by the command line alone."""
    code = (
        "import sys, resilient_ai as r; r.AsyncClient; r.Client; sys.exit(bool({'typer', 'rich'} & set(sys.modules)))"
    )
    assert run_python(offline, code).returncode == 0


def test_closed_pipe_is_quiet_for_tables_too(offline):
    """A table whose reader has left ends like any other output."""
    process = offline.start("models", "--all", "--json")
    process.stdout.close()
    errors = process.stderr.read()
    assert (process.wait(timeout=20), errors) == (141, b"")
    process.stderr.close()
    process.stdin.close()
