"""The options of `run` and `chat`, and the conversation that they describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mullama.cli.app.context import CommandContext, Parser, server_options
from mullama.cli.app.text_files import read_text
from mullama.cli.inference.conversation import LEVELS, PARAMETERS, Conversation, response_format, think_level
from mullama.cli.inference.session_log import ChatLog
from mullama.cli.inference.session_store import ChatStore, SessionKeeper, session_name
from mullama.cli.models.load import declaration_options, keep_alive

# Options of sampling: the parameter of the request, the placeholder and the help.
_SAMPLING = {
    ("-n", "--max-tokens"): ("num_predict", "N", "maximum number of tokens to generate"),
    ("-t", "--temperature"): ("temperature", "T", "sampling temperature; 0 selects the most likely token"),
    ("--top-p",): ("top_p", "P", "nucleus sampling: keep the most likely tokens up to this total probability"),
    ("--top-k",): ("top_k", "K", "keep only the K most likely tokens"),
    ("--min-p",): ("min_p", "P", "drop tokens less likely than P times the most likely one"),
    ("--typical-p",): ("typical_p", "P", "locally typical sampling; 1 switches it off"),
    ("--repeat-penalty",): ("repeat_penalty", "X", "penalty for repeated tokens; 1 switches it off"),
    ("--seed",): ("seed", "N", "random seed, for reproducible answers"),
}


def session_options(parser: Parser) -> None:
    parser.add_argument("--load-session", metavar="NAME", help="continue a saved conversation, with its model")
    parser.add_argument(
        "--save-session", metavar="NAME",
        help="save the conversation under this name after each answer; a name that exists must be loaded, too",
    )  # fmt: skip


def loaded_session(call: CommandContext) -> ChatLog | None:
    """Return the conversation of --load-session, None without it."""
    name = call.options.load_session
    return None if name is None else ChatStore(call.env).find(session_name(name, any_id=True))


def session_keeper(call: CommandContext) -> SessionKeeper | None:
    """Return the keeper of --save-session, None without it."""
    name = call.options.save_session
    return None if name is None else SessionKeeper(ChatStore(call.env), name, continued=call.options.load_session)


def conversation_options(parser: Parser) -> None:
    server_options(parser)
    declaration_options(parser)
    parser.add_argument("--system", metavar="TEXT", help="system prompt, instead of the manifest's")
    for names, (parameter, metavar, text) in _SAMPLING.items():
        parser.add_argument(*names, dest=parameter, type=PARAMETERS[parameter], metavar=metavar, help=text)
    parser.add_argument("--stop", action="append", metavar="TEXT", help="stop at this text; may be repeated")
    parser.add_argument("--format", metavar="json|FILE", help="answer in JSON, or by the JSON Schema in a file")
    parser.add_argument(
        "--think",
        nargs="?",
        const="true",
        metavar="|".join(LEVELS),
        help="let the model think before it answers, or not",
    )
    parser.add_argument(
        "--enable-search", action="store_true", help="let the model search the web, as search of the manifest declares"
    )
    parser.add_argument("--hidethinking", action="store_true", help="do not print the thinking")
    parser.add_argument("--keepalive", type=keep_alive, metavar="TIME", help="time the model stays loaded afterwards")
    parser.add_argument("--stats", "--verbose", action="store_true", help="print token counts and speed to stderr")
    parser.add_argument("--nowordwrap", action="store_true", help="accepted for compatibility; lines are never wrapped")


def conversation_of(call: CommandContext, model: str, saved: ChatLog | None = None) -> Conversation:
    """Return a conversation with the settings of the options. saved: an earlier one that it continues."""
    options = call.options
    saved = saved or ChatLog(id="", model=model, changed=0.0)
    names = (*(parameter for parameter, _, _ in _SAMPLING.values()), "stop")
    return Conversation(
        model=model,
        system=saved.system if options.system is None else options.system,
        parameters={
            **saved.parameters,
            **{name: value for name in names if (value := getattr(options, name)) is not None},
        },
        turns=saved.turns,
        continues=saved.id or None,
        format=_format(call),
        think=think_level(options.think) if options.think is not None else None,
        keep_alive=options.keepalive,
        search=options.enable_search,
        verbose=options.stats,
        show_thinking=not options.hidethinking,
    )


def _format(call: CommandContext) -> Any:
    text = call.options.format
    if text is None:
        return None
    path = call.folder / Path(text).expanduser()
    return response_format(read_text(path) if text != "json" and path.is_file() else text)
