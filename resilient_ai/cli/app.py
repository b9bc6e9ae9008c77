"""The commands together, and what every one of them does about errors, Ctrl-C, warnings and closed pipes."""

import inspect
import os
import sys
import warnings
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from typer.core import TyperGroup
from typing_extensions import override

from resilient_ai._version import __version__
from resilient_ai.cli import failures
from resilient_ai.cli.boards import boards
from resilient_ai.cli.budgets import budgets
from resilient_ai.cli.cache import cache
from resilient_ai.cli.chat import chat
from resilient_ai.cli.costs import costs
from resilient_ai.cli.demo.command import demo
from resilient_ai.cli.doctor import doctor
from resilient_ai.cli.embed import embed
from resilient_ai.cli.image import image
from resilient_ai.cli.models import models
from resilient_ai.cli.route import route
from resilient_ai.cli.simulate import simulate
from resilient_ai.cli.terminal import abandon_output, forgive_odd_characters, one_line, say, write
from resilient_ai.cli.trace import trace

_HELP = """DeepInfra's language, embedding and image models, with retries, a circuit breaker, a cache and a book of costs.

The key is read from DEEPINFRA_API_KEY, settings from RESILIENT_AI_... and the file named in RESILIENT_AI_CONFIG.
"""
_EPILOG = "Exit codes: 0 all went well, 1 the service or a policy failed, 2 wrong use or configuration, 130 Ctrl-C."
# What is to be given in place of a text that is none, by what pydantic calls that.
_NUMBERS = {
    "int_parsing": "must be a whole number in digits, such as 100000",
    "float_parsing": "must be a number, such as 0.5",
}


class Group(TyperGroup):
    """A group of commands, of whose wrong arguments it is known which command they were given to."""

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            # What breaks while arguments are read may lack the command, to whose help the complaint shall lead.
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            if command is not None and getattr(error, "ctx", error) is None:
                error.ctx = typer.Context(command, info_name=ctx.invoked_subcommand, parent=ctx)  # type: ignore[attr-defined]
            raise


class Commands(Group):
    """All commands; they end in one line and an exit code, whatever happens."""

    @override
    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run one command and exit."""
        forgive_odd_characters()
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.filterwarnings("default", category=UserWarning)
            code = self._exit_code(*args, **{**extra, "standalone_mode": False})
        if code == failures.CANCELLED:
            with suppress(OSError):
                say("cancelled", "yellow")
        sys.exit(code)

    @override
    def invoke(self, ctx: Any) -> Any:
        # Typer turns a closed pipe into exit code 1, which scripts could not tell from a failure of the service.
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            abandon_output()
            raise typer.Exit(failures.PIPE_CLOSED) from None
        return result

    def _exit_code(self, *args: Any, **extra: Any) -> int:
        try:
            result = super().main(*args, **extra)
        except (KeyboardInterrupt, typer.Abort):
            return failures.CANCELLED
        except Exception as error:
            code = failures.exit_code_of(error)
            if code is not None:
                _complain(failures.sentence(error))
                return code
            if not hasattr(error, "format_message"):  # what typer raises for wrong arguments
                raise
            return _wrong_arguments(error)
        return result if isinstance(result, int) else 0


def _wrong_arguments(error: Any) -> int:
    context = getattr(error, "ctx", None)
    if isinstance(error.__cause__, ValidationError):
        error.message = _wrong_value(error.__cause__)
    if type(error).__name__ != "NoArgsIsHelpError":  # which has shown the help
        path = context.command_path if context is not None else "resilient-ai"
        _complain(f"{one_line(error.format_message()).rstrip('.')}; see `{path} --help`")
    return failures.WRONG_USE


def _wrong_value(error: ValidationError) -> str:
    """Return what a value must be, and what was given."""
    first = error.errors(include_url=False)[0]
    wanted = _NUMBERS.get(first["type"], first["msg"].replace("Input should", "must"))
    return f"{wanted}, got {first['input']!r}"


def _complain(text: str) -> None:
    say(f"error: {text}", "red")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"warning: {one_line(str(message))}", "yellow")


def _show_version(asked: bool) -> None:
    if asked:
        write(f"resilient-ai {__version__}\n")
        raise typer.Exit


def _unbroken(text: str | None) -> str:
    """Return paragraphs without line breaks, which typer would keep from the second on."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n"))


app = typer.Typer(
    name="resilient-ai",
    cls=Commands,
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (chat, embed, image, models, route, costs, budgets, trace, boards, doctor, simulate, demo):
    app.command(help=_unbroken(command.__doc__))(command)
app.add_typer(cache, name="cache", cls=Group)
for info in cache.registered_commands:
    info.help = _unbroken(getattr(info.callback, "__doc__", None))


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Hold what stands before the name of a command."""


def run() -> NoReturn:
    """Run the command that the arguments name, and exit."""
    _replace_closed_output()
    sys.exit(typer.main.get_command(app).main(prog_name="resilient-ai"))


def _replace_closed_output() -> None:
    """Put a pipe that nobody reads in the place of a standard output that is closed; what is written ends like any such pipe."""
    if sys.stdout is None:
        reader, writer = os.pipe()
        os.close(reader)
        sys.stdout = os.fdopen(writer, "w", encoding="utf-8")
