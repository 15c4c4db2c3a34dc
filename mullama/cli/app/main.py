"""Entry point: finds the command, runs it, and translates errors into messages and an exit code."""

from __future__ import annotations

import argparse
import importlib
import keyword
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import mullama
from mullama.cli.app.commands import COMMANDS, GROUPS, Command
from mullama.cli.app.context import CommandContext, Parser, UsageError
from mullama.cli.app.exit_codes import ERROR, INTERRUPTED, as_mullama_error, exit_code, explain
from mullama.cli.console.terminal import Terminal

_BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None, terminal: Terminal | None = None) -> int:
    """Run one command line and return its exit code. Raises only `SystemExit`, for --help and --version."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    terminal = terminal or Terminal.standard()
    try:
        code = _run(given, terminal)
        terminal.out.flush()
    except BrokenPipeError:
        _discard_output(terminal)
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        terminal.note("interrupted")
        return INTERRUPTED
    return code


def _run(given: list[str], terminal: Terminal) -> int:
    command: Command | None = None
    try:
        ended = given.index("--") if "--" in given else len(given)
        top = _top_parser().parse_args(_as_help(given[:ended]))  # argparse would take the `--` after a command away
        top.rest += given[ended:]
        if top.command is None:
            _top_parser().print_help(terminal.out)
            return 0
        command = _find(top.command)
        function, parser = load(command)
        return function(_context(command.name, parser, top, terminal))
    except BrokenPipeError:
        raise
    except Exception as raised:  # noqa: BLE001 - the outermost layer: users see no traceback
        return _report(raised, terminal, is_diff=command is not None and command.name == "diff")


def _as_help(given: list[str]) -> list[str]:
    """Return `help COMMAND` as `COMMAND --help`, as other programs understand it."""
    if given[:1] != ["help"]:
        return given
    return [given[1], "--help"] if len(given) > 1 else []


def _top_parser() -> Parser:
    listed = "\n\n".join(_group(name) for name in GROUPS)
    parser = Parser(
        prog="mullama",
        description="The declarative way to run local LLMs: one manifest, diff, apply, hot reload.",
        epilog=f"{listed}\n\n`mullama COMMAND --help` lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="mullama [--host URL] [--key-file FILE] COMMAND …",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-V", "-v", "--version", action="version", version=f"mullama {mullama.__version__}", help="print the version"
    )
    parser.add_argument("--host", metavar="URL", help="address of the server")
    parser.add_argument("--key-file", metavar="FILE", help="file that holds the API key")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _group(name: str) -> str:
    """Return the commands of one group under its heading."""
    rows = (f"  {command.name:<12}{command.summary}" for command in COMMANDS if command.group == name)
    return "\n".join([f"{GROUPS[name]}:", *rows])


def _find(name: str) -> Command:
    for command in COMMANDS:
        if name in (command.name, *command.aliases):
            return command
    from mullama.cli.app import unsupported
    from mullama.names import suggest

    near = suggest(name, [known for command in COMMANDS for known in (command.name, *command.aliases)], cutoff=0.7)
    hint = f"did you mean {' or '.join(near)}?" if near else "mullama --help lists the commands"
    raise UsageError(f"no command {name!r}", hint=unsupported.COMMANDS.get(name, hint))


def load(command: Command) -> tuple[Callable[[CommandContext], int], Parser]:
    """Import the module of a command; return its function and the parser of its options."""
    module = importlib.import_module(f"mullama.cli.{command.module}")
    parser = Parser(
        prog=f"mullama {command.name}",
        description=command.summary[0].upper() + command.summary[1:] + ".",
        allow_abbrev=False,
    )
    getattr(module, f"{command.name}_options")(parser)
    # The function of a command whose name is a Python keyword has a trailing underscore.
    function: Callable[[CommandContext], int] = getattr(module, command.name + "_" * keyword.iskeyword(command.name))
    return function, parser


def parse(command: str, parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of a command, or raise `UsageError` with the hint for the first one of another tool."""
    if command in ("run", "bench", "tune") and arguments and not arguments[0].startswith("-"):
        _require_no_type(command, arguments)
    try:
        return parser.parse_words(arguments)
    except UsageError:
        from mullama.cli.app import unsupported

        if (refusal := unsupported.refusal(parser, command, arguments)) is not None:
            raise refusal from None
        raise


def _require_no_type(command: str, arguments: Sequence[str]) -> None:
    """Raise `UsageError` for `run text -m MODEL`, which `run` would read as a question."""
    if not {"-m", "--model"} & set(arguments):
        return
    from mullama.cli.app import unsupported

    if (refusal := unsupported.refused_type(command, arguments)) is not None:
        raise refusal


def _context(command: str, parser: Parser, top: argparse.Namespace, terminal: Terminal) -> CommandContext:
    """Parse the options of the command. A --host or --key-file before the command counts as one after it."""
    given = {key: getattr(top, key) for key in ("host", "key_file") if getattr(top, key) is not None}
    options = parse(command, parser, top.rest)
    for key, text in given.items():
        if not hasattr(options, key):
            parser.error(f"--{key.replace('_', '-')} is not an option of this command")
        if getattr(options, key) is None:
            setattr(options, key, text)
    return CommandContext(options=options, terminal=terminal, env=os.environ, folder=Path.cwd())


def _report(raised: Exception, terminal: Terminal, *, is_diff: bool) -> int:
    """Write the error to stderr and return its exit code: always 1 for diff, where 2 means `DIFFERS`."""
    if os.environ.get("MULLAMA_DEBUG"):
        import traceback

        traceback.print_exception(raised, file=terminal.err)
    error = as_mullama_error(raised)
    for line in explain(error):
        terminal.note(line)
    return ERROR if is_diff else exit_code(error)


def _discard_output(terminal: Terminal) -> None:
    """Point stdout at the null device, because its reader closed it and the interpreter flushes it at exit."""
    if terminal.out is sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
