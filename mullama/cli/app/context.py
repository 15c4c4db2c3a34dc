"""The context of one command call, the argument parser, and options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from mullama.cli.console.terminal import Terminal
from mullama.errors import Invalid
from mullama.units import parse_duration

_NEAR = 0.8
"""Least similarity of an option to suggest. At 0.7, --mcp-port would be taken for --http-port."""


class CommandContext(NamedTuple):
    """Everything that a command receives."""

    options: argparse.Namespace
    terminal: Terminal
    env: Mapping[str, str]
    folder: Path
    """Working directory; relative paths of the command line start here."""


class UsageError(Invalid):
    """The command line is invalid."""


_LITERAL = "\0"
"""Begins an argument that was written after `--`. No argument of a process contains it."""
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would print and exit."""

    unknown_hint = ""
    """The hint for an unknown option that resembles none; "" for the list of options."""

    def parse_words(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse the arguments of a command; those after the first `--` are no options.

        `parse_intermixed_args` looks at the positional arguments twice and has lost the `--` the second time.
        """
        ended = arguments.index("--") if "--" in arguments else len(arguments)
        plain = [word for argument in arguments[:ended] for word in self._plain_flag(argument)]
        return self.parse_intermixed_args([*plain, *(_LITERAL + word for word in arguments[ended + 1 :])])

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        return super()._get_value(action, arg_string.removeprefix(_LITERAL))

    def error(self, message: str) -> NoReturn:
        message = message.replace(_LITERAL, "")
        hint = self._suggestion(message) or (self.unknown_hint if message.startswith("unrecognized") else "")
        raise UsageError(message, hint=hint or f"{self.prog} --help lists the options")

    def _plain_flag(self, argument: str) -> tuple[str, ...]:
        """Return `--flag=true` and `--flag=false`, as other tools write them, as plain flags.

        Raises `UsageError` for another value of a flag.
        """
        name, given, value = argument.partition("=")
        action = self._option_string_actions.get(name)
        if not given or not name.startswith("--") or action is None or action.nargs != 0:
            return (argument,)
        word = value.lower()
        if word not in _TRUTH:
            raise UsageError(f"{name} is true or false, not {value!r}", hint=f"write {name} alone, or leave it out")
        if _TRUTH[word]:
            return (name,)
        opposite = f"--no-{name.removeprefix('--')}"
        return (opposite,) if opposite in self._option_string_actions else ()

    def _suggestion(self, message: str) -> str:
        """Return `did you mean …?` for the first unknown option in a message of argparse, "" without one."""
        unknown = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
        if not message.startswith("unrecognized") or not unknown:
            return ""
        from mullama.names import suggest

        shown = (name for action in self._actions if action.help != argparse.SUPPRESS for name in action.option_strings)
        known = [name.removeprefix("--") for name in shown if name.startswith("--")]
        wanted = unknown[0].removeprefix("--")
        longer = [name for name in known if len(wanted) > 2 and name.startswith(wanted)]
        close = longer or suggest(wanted, known, cutoff=_NEAR)
        return f"did you mean {' or '.join(f'--{name}' for name in close)}?" if close else ""


def manifest_options(parser: Parser) -> None:
    parser.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        help="manifest file, or - for standard input (default: mullama.yaml in this folder)",
    )
    parser.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="NAME",
        help="profile of the manifest to merge; repeat to merge several in order",
    )


def server_options(parser: Parser) -> None:
    parser.add_argument(
        "--host",
        metavar="URL",
        help="address of the server: http://HOST:PORT, https://HOST or unix:PATH "
        "(default: MULLAMA_HOST, else the server of the manifest)",
    )
    parser.add_argument("--key-file", metavar="FILE", help="file that holds the API key (default: MULLAMA_API_KEY)")
    parser.add_argument(
        "--ca-file",
        metavar="FILE",
        help="PEM file of the authority that signed the server's certificate (default: MULLAMA_CA_FILE, else those of "
        "the system)",
    )
    parser.add_argument(
        "--cert-file",
        metavar="FILE",
        help="PEM file with the certificate of this client and its key (default: MULLAMA_CERT_FILE)",
    )


def json_option(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def yes_option(parser: Parser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")


def target_option(parser: Parser) -> None:
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="NAME",
        help="only this model or route and what it needs; may be repeated. The rest stays as it is applied",
    )


def refresh_option(parser: Parser, help: str) -> None:
    parser.add_argument("--refresh-only", action="store_true", help=help)


def require_alone(options: argparse.Namespace, *others: str) -> None:
    """Raise `UsageError` for --refresh-only with another option that chooses the manifest. others: their names."""
    for name in others:
        if getattr(options, name.replace("-", "_")):
            raise UsageError(
                f"--refresh-only compares the applied revision, so --{name} has no meaning", hint=f"leave out --{name}"
            )


def timeout_option(parser: Parser, default: str) -> None:
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=seconds(default),
        metavar="TIME",
        help=f"time limit, such as 30s, 5m or never (default: {default})",
    )


def seconds(text: str) -> float:
    """Return the seconds of `90`, `90s`, `1h30m` or `never`."""
    try:
        return parse_duration(f"{text}s" if text[-1:].isdigit() else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 30s, 5m or never") from error
