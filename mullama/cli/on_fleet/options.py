"""The option of commands that plan around hosts of a fleet."""

from __future__ import annotations

from mullama.cli.app.context import CommandContext, Parser, UsageError


def skip_option(parser: Parser) -> None:
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="HOST",
        help="leave out this host of fleet.hosts, as if the manifest declared it away; may be repeated",
    )


def refuse_skip(call: CommandContext) -> None:
    """Raise `UsageError` for --skip of a command that asks no fleet."""
    if call.options.skip:
        raise UsageError("--skip is for hosts of a fleet, which this command does not ask", hint="leave out --skip")
