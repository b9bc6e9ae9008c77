import subprocess
import sys
from types import ModuleType

import pytest

from resilient_ai.cli import main


def test_main_runs_the_command_line(monkeypatch, capsys):
    """The entry point reads the arguments and exits."""
    monkeypatch.setattr(sys, "argv", ["resilient-ai", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("resilient-ai ")


@pytest.mark.parametrize("missing", ["typer", "rich.console"])
def test_missing_packages_are_named_with_their_extra(monkeypatch, capsys, missing):
    """Without typer or rich one line says what to install, and the exit code is that of a wrong set-up."""
    for name in [name for name in sys.modules if name.startswith("resilient_ai.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as ended:
        main()
    name = missing.partition(".")[0]
    assert (ended.value.code, capsys.readouterr().err) == (
        2,
        f"error: {name} is missing; install it with: pip install 'resilient-ai[cli]'\n",
    )


def test_other_missing_modules_are_raised(monkeypatch):
    """A fault of the installation that no extra mends keeps its traceback."""
    monkeypatch.delitem(sys.modules, "resilient_ai.cli.app")
    monkeypatch.setitem(sys.modules, "resilient_ai.cli.chat", None)
    with pytest.raises(ModuleNotFoundError, match=r"resilient_ai\.cli\.chat"):
        main()


def test_ctrl_c_while_loading_is_130(monkeypatch):
    """Somebody who changes their mind at once sees no traceback."""

    class Interrupted(ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "resilient_ai.cli.app", Interrupted("resilient_ai.cli.app"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130


@pytest.mark.parametrize(
    ("arguments", "code"), [(["models", "--cheapest"], 141), (["costs", "--json"], 141), (["costs"], 0)]
)
def test_a_closed_standard_output_is_like_a_pipe_that_nobody_reads(tmp_path, arguments, code):
    """Whoever has something to write ends quietly; a command that writes nothing there does not notice."""
    program = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    run_it = "from resilient_ai.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program, "-c", run_it, *arguments],
        env={"RESILIENT_AI_HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, b"Traceback" in ended.stderr) == (code, False)
