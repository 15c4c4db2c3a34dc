"""`mullama run`: one question to one model, answered as it is made; without a question, a conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mullama.cli.answering import Answer, counts, having, pictures, show
from mullama.cli.background import ensure_server
from mullama.cli.call import Call, Parser, Usage, manifest_options, server_options
from mullama.cli.conversation import LEVELS, Conversation, response_format, think_level
from mullama.cli.exits import DONE
from mullama.cli.loading import keep_alive

# The options that become parameters of the request, and the parameter that each is.
_PARAMETERS = {
    "max_tokens": "num_predict", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
    "typical_p": "typical_p", "repeat_penalty": "repeat_penalty", "seed": "seed", "stop": "stop",
}  # fmt: skip


def run_options(parser: Parser) -> None:
    manifest_options(parser)
    conversation_options(parser)
    parser.add_argument("model", metavar="MODEL", help="a model or a route; or a source, which is fetched first")
    parser.add_argument("prompt", nargs="*", help="what to ask; - or a pipe: standard input; nothing: a conversation")
    parser.add_argument("-i", "--image", action="append", default=[], metavar="PATH", help="a picture to look at")
    parser.add_argument("--no-stream", action="store_true", help="print the answer once it is whole")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def conversation_options(parser: Parser) -> None:
    """What run and chat share."""
    server_options(parser)
    parser.add_argument("--system", metavar="TEXT", help="a system prompt instead of the manifest's")
    parser.add_argument("-n", "--max-tokens", type=int, metavar="N", help="at most so many tokens")
    parser.add_argument("-t", "--temperature", type=float, metavar="T", help="0 always takes the likeliest token")
    parser.add_argument("--top-p", type=float, metavar="P", help="only tokens that together have this probability")
    parser.add_argument("--top-k", type=int, metavar="K", help="only the K likeliest tokens")
    parser.add_argument("--min-p", type=float, metavar="P", help="only tokens with this share of the likeliest one's")
    parser.add_argument("--typical-p", type=float, metavar="P", help="only tokens of typical surprise")
    parser.add_argument("--repeat-penalty", type=float, metavar="X", help="make repeated tokens less likely")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same answer")
    parser.add_argument("--stop", action="append", metavar="TEXT", help="end the answer here; several are allowed")
    parser.add_argument("--format", metavar="json|FILE", help="answer in JSON, or by the JSON Schema in a file")
    parser.add_argument("--think", nargs="?", const="true", metavar="|".join(LEVELS), help="whether it thinks first")
    parser.add_argument("--hidethinking", action="store_true", help="do not print what it thinks")
    parser.add_argument("--keepalive", type=keep_alive, metavar="TIME", help="how long the model stays afterwards")
    parser.add_argument("--stats", "--verbose", action="store_true", help="tell tokens and speed on stderr")
    parser.add_argument(
        "--nowordwrap", action="store_true", help="lines are never wrapped anyway"
    )


def run(call: Call) -> int:
    prompt = _prompt(call)
    conversation = conversation_of(call, call.options.model)
    if prompt is None:
        from mullama.cli.chat import talk

        return talk(call, conversation)
    body = conversation.body(prompt, pictures(call, prompt, tuple(call.options.image)))
    answer = Answer()
    pieces = having(call, ensure_server(call), body, answer)
    if call.options.json or call.options.no_stream:
        for _ in pieces:
            pass
    else:
        show(call.terminal, pieces, thinking=_shows_thinking(call))
    _finish(call, answer)
    return DONE


def conversation_of(call: Call, model: str) -> Conversation:
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


def _format(call: Call) -> Any:
    said = call.options.format
    if said is None or said == "json":
        return said
    path = call.folder / Path(said).expanduser()
    return response_format(path.read_text(encoding="utf-8") if path.is_file() else said)


def _prompt(call: Call) -> str | None:
    """The question; None where a person sits at the terminal and has not asked yet."""
    words, terminal = call.options.prompt, call.terminal
    if words and words != ["-"]:
        return " ".join(words)
    if not words and terminal.source.isatty():
        if call.options.json:
            raise Usage("there is no prompt", hint='mullama run MODEL "a question", or pipe one in')
        return None
    return terminal.source.read()


def _shows_thinking(call: Call) -> bool:
    """Thoughts are for eyes, or for who asked for them."""
    return not call.options.hidethinking and (call.terminal.live or call.options.think not in (None, "false"))


def _finish(call: Call, answer: Answer) -> None:
    last, terminal = answer.last, call.terminal
    if call.options.json:
        tree = {
            "model": last.get("model"),
            "content": answer.text,
            **({"thinking": answer.thinking} if answer.thinking else {}),
            "done_reason": last.get("done_reason"),
            "prompt_tokens": int(last.get("prompt_eval_count") or 0),
            "tokens": int(last.get("eval_count") or 0),
            "seconds": float(last.get("eval_duration") or 0) / 1e9,
        }
        terminal.raw(json.dumps(tree, ensure_ascii=False) + "\n")
    else:
        terminal.raw((answer.text if call.options.no_stream else "") + "\n")
    if call.options.stats:
        terminal.note(counts(last))
