"""The options of `run` and `chat`, and the conversation that they describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mullama.cli.app.context import CommandContext, Parser, server_options
from mullama.cli.inference.conversation import LEVELS, Conversation, response_format, think_level
from mullama.cli.models.load import declaration_options, keep_alive

# Parameters of a request, by the option that sets them.
_PARAMETERS = {
    "max_tokens": "num_predict", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
    "typical_p": "typical_p", "repeat_penalty": "repeat_penalty", "seed": "seed", "stop": "stop",
}  # fmt: skip


def conversation_options(parser: Parser) -> None:
    server_options(parser)
    declaration_options(parser)
    parser.add_argument("--system", metavar="TEXT", help="system prompt, instead of the manifest's")
    parser.add_argument("-n", "--max-tokens", type=int, metavar="N", help="most tokens to generate")
    parser.add_argument(
        "-t", "--temperature", type=float, metavar="T", help="sampling temperature; 0 selects the most likely token"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="nucleus sampling: keep the most likely tokens up to this total probability",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="keep only the K most likely tokens")
    parser.add_argument(
        "--min-p", type=float, metavar="P", help="drop tokens less likely than P times the most likely one"
    )
    parser.add_argument("--typical-p", type=float, metavar="P", help="locally typical sampling; 1 switches it off")
    parser.add_argument(
        "--repeat-penalty", type=float, metavar="X", help="penalty for repeated tokens; 1 switches it off"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="random seed, for reproducible answers")
    parser.add_argument("--stop", action="append", metavar="TEXT", help="stop at this text; may be repeated")
    parser.add_argument("--format", metavar="json|FILE", help="answer in JSON, or by the JSON Schema in a file")
    parser.add_argument(
        "--think",
        nargs="?",
        const="true",
        metavar="|".join(LEVELS),
        help="let the model think before it answers, or not",
    )
    parser.add_argument("--hidethinking", action="store_true", help="do not print the thinking")
    parser.add_argument("--keepalive", type=keep_alive, metavar="TIME", help="time the model stays loaded afterwards")
    parser.add_argument("--stats", "--verbose", action="store_true", help="print token counts and speed to stderr")
    parser.add_argument("--nowordwrap", action="store_true", help="accepted for compatibility; lines are never wrapped")


def conversation_of(call: CommandContext, model: str) -> Conversation:
    """Return an empty conversation with the settings of the options."""
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
    text = call.options.format
    if text is None:
        return None
    path = call.folder / Path(text).expanduser()
    return response_format(path.read_text(encoding="utf-8") if text != "json" and path.is_file() else text)
