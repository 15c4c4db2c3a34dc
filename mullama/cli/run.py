"""`mullama run`: one question to one model, answered as it is made; without a question, a conversation."""

from __future__ import annotations

import json

from mullama.cli.answering import Answer, counts, having, pictures, require_possible, show
from mullama.cli.background import ensure_server
from mullama.cli.call import Call, Parser, Usage, manifest_options
from mullama.cli.chat import talk
from mullama.cli.exits import DONE
from mullama.cli.sampling import conversation_of, conversation_options


def run_options(parser: Parser) -> None:
    manifest_options(parser)
    conversation_options(parser)
    parser.add_argument("model", metavar="MODEL", help="a model or a route; or a source, which is fetched first")
    parser.add_argument("prompt", nargs="*", help="what to ask; - or a pipe: standard input; nothing: a conversation")
    parser.add_argument("-i", "--image", action="append", default=[], metavar="PATH", help="a picture to look at")
    parser.add_argument("--no-stream", action="store_true", help="print the answer once it is whole")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(call: Call) -> int:
    prompt = _prompt(call)
    conversation = conversation_of(call, call.options.model)
    if prompt is None:
        return talk(call, conversation)
    body = conversation.body(prompt, pictures(call, prompt, tuple(call.options.image)))
    answer = Answer()
    require_possible(call, conversation.model)
    pieces = having(call, ensure_server(call), body, answer)
    if call.options.json or call.options.no_stream:
        for _ in pieces:
            pass
    else:
        show(call.terminal, pieces, thinking=_shows_thinking(call))
    _finish(call, answer)
    return DONE


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
