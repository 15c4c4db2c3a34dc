"""One call of one command: its options, the terminal, and the environment it was made in."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mullama.cli.console.terminal import Terminal
from mullama.errors import Invalid
from mullama.units import parse_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandContext:
    """What a command is given. `folder` is the working directory that relative paths on the line mean."""

    options: argparse.Namespace
    terminal: Terminal
    env: Mapping[str, str]
    folder: Path


class UsageError(Invalid):
    """A mistake in the command line itself."""


class Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError` where argparse would print and leave."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=self._meant(message) or f"{self.prog} --help shows what it takes")

    def _meant(self, message: str) -> str:
        """`did you mean …?` for the first option that a message about unknown ones names."""
        unknown = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
        if not message.startswith("unrecognized") or not unknown:
            return ""
        from mullama.names import suggest

        known = [name for action in self._actions if action.help != argparse.SUPPRESS for name in action.option_strings]
        close = suggest(unknown[0], known)
        return f"did you mean {' or '.join(close)}?" if close else ""


# Options that several commands share, said once so that they read the same everywhere.


def manifest_options(parser: Parser) -> None:
    parser.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        help="the manifest, or - for standard input (default: mullama.yaml here)",
    )
    parser.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="NAME",
        help="work in a profile of the manifest; may be given several times, in order",
    )


def server_options(parser: Parser) -> None:
    parser.add_argument(
        "--host",
        metavar="URL",
        help="the server to ask: http://HOST:PORT, https://HOST or unix:PATH "
        "(default: MULLAMA_HOST, else the one that runs for the manifest)",
    )
    parser.add_argument("--key-file", metavar="FILE", help="a file with the API key (default: MULLAMA_API_KEY)")


def json_option(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def yes_option(parser: Parser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def timeout_option(parser: Parser, default: str) -> None:
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=seconds(default),
        metavar="TIME",
        help=f"give up after this time, such as 30s or 5m (default: {default})",
    )


def seconds(text: str) -> float:
    """Return the seconds of `90`, `90s`, `1h30m` or `never`."""
    try:
        return parse_duration(f"{text}s" if text[-1:].isdigit() else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 30s, 5m or never") from error
