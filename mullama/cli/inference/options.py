"""The options that run and chat share, and the conversation that they begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mullama.cli.app.context import CommandContext, Parser, server_options
from mullama.cli.inference.conversation import LEVELS, Conversation, response_format, think_level
from mullama.cli.models.load import declaring_options, keep_alive

# The options that become parameters of the request, and the parameter that each is.
_PARAMETERS = {
    "max_tokens": "num_predict", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
    "typical_p": "typical_p", "repeat_penalty": "repeat_penalty", "seed": "seed", "stop": "stop",
}  # fmt: skip


def conversation_options(parser: Parser) -> None:
    """What run and chat share."""
    server_options(parser)
    declaring_options(parser)
    parser.add_argument("--system", metavar="TEXT", help="a system prompt instead of the manifest's")
    parser.add_argument("-n", "--max-tokens", type=int, metavar="N", help="at most so many tokens")
    parser.add_argument("-t", "--temperature", type=float, metavar="T", help="0 always takes the likeliest token")
    parser.add_argument("--top-p", type=float, metavar="P", help="only tokens that together have this probability")
    parser.add_argument("--top-k", type=int, metavar="K", help="only the K likeliest tokens")
    parser.add_argument("--min-p", type=float, metavar="P", help="only tokens with this share of the likeliest one's")
    parser.add_argument("--typical-p", type=float, metavar="P", help="only tokens of typical surprise")
    parser.add_argument("--repeat-penalty", type=float, metavar="X", help="make repeated tokens less likely")
    parser.add_argument("--seed", type=int, metavar="N", help="where chance starts, for the same answer again")
    parser.add_argument("--stop", action="append", metavar="TEXT", help="end the answer here; several are allowed")
    parser.add_argument("--format", metavar="json|FILE", help="answer in JSON, or by the JSON Schema in a file")
    parser.add_argument("--think", nargs="?", const="true", metavar="|".join(LEVELS), help="whether it thinks first")
    parser.add_argument("--hidethinking", action="store_true", help="do not print what it thinks")
    parser.add_argument("--keepalive", type=keep_alive, metavar="TIME", help="how long the model stays afterwards")
    parser.add_argument("--stats", "--verbose", action="store_true", help="tell tokens and speed on stderr")
    parser.add_argument("--nowordwrap", action="store_true", help="lines are never wrapped anyway")


def conversation_of(call: CommandContext, model: str) -> Conversation:
    """An empty conversation with what the options say."""
    options = call.options
    given = {name: getattr(options, option) for option, name in _PARAMETERS.items()}
    return Conversation(
        model=model,
        system=options.system,
        parameters={name: value for name, value in given.items() if value is not None},
        format=_format(call),
        think=think_level(options.think) if options.think is not None else None,
        keep_alive=options.keepalive,
        verbose=options.stats,
        show_thinking=not options.hidethinking,
    )


def _format(call: CommandContext) -> Any:
    said = call.options.format
    if said is None or said == "json":
        return said
    path = call.folder / Path(said).expanduser()
    return response_format(path.read_text(encoding="utf-8") if path.is_file() else said)
